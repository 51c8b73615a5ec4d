// The browser that the pages are looked at in.

import { mkdirSync } from 'node:fs';
import { after, before } from 'node:test';
import { fileURLToPath } from 'node:url';

import { chromium } from 'playwright-core';

const SCREENSHOTS = fileURLToPath(new URL('../.test/screenshots/', import.meta.url));

/** What a phone's browser says of itself. */
export const PHONE = { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true };

let browser;

before(async () => {
  mkdirSync(SCREENSHOTS, { recursive: true });
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM || '/usr/bin/chromium',
    args: [
      ...['--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking'],
      ...['--disable-component-update', '--disable-sync'],
      // As root Chromium runs only without its sandbox.
      ...(process.getuid() === 0 ? ['--no-sandbox'] : []),
    ],
  });
});

after(() => browser?.close());

/** A profile of its own, for one page or several. */
export const newContext = (options) => browser.newContext(options);

/** Opens an empty page. What goes wrong on it, and what it asks of anybody but `host`, is added to `faults`, but for
 * messages that are `expected`. */
export async function newPage(context, host, faults, expected = []) {
  const page = await context.newPage();
  page.setDefaultTimeout(10_000);
  const isFault = (message) =>
    ['error', 'warning'].includes(message.type()) && !expected.some((text) => text.test(message.text()));
  const isLocal = (url) => url.protocol === 'data:' || url.host === host;
  page.on('pageerror', (error) => faults.push(`error: ${error.stack}`));
  page.on('console', (message) => isFault(message) && faults.push(`console: ${message.text()}`));
  page.on('request', (request) => isLocal(new URL(request.url())) || faults.push(`request to ${request.url()}`));
  page.on('websocket', (socket) => isLocal(new URL(socket.url())) || faults.push(`socket to ${socket.url()}`));
  return page;
}

/** Keeps a picture of a page for somebody to look at. */
export const screenshot = (page, name, options = {}) => page.screenshot({ path: `${SCREENSHOTS}${name}.png`, ...options });
