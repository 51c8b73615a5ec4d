// The dashboard on the ops listener, in a browser.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import WebSocket from 'ws';

import { PHONE, newContext, newPage, screenshot } from './browser.mjs';
import { SECRET, serve, token, until } from './fanwire.mjs';
import { RawWebSocket } from './raw_websocket.mjs';
import { startRedis } from './redis.mjs';

const DESKTOP = { viewport: { width: 1280, height: 900 } };
const LONG = 'orders-with-a-name-that-is-much-longer-than-any-column-has-room-for-on-any-screen';
/** A user who would like to be more than text. */
const USER = '<img src=x onerror="document.title=1">';
const CONFIG = `
[client]
anonymous = true
queue_size = 4000000
[token]
hmac_secret = "${SECRET}"
[[namespace]]
subscribe = "anyone"
`;

test('a node by itself shows what it does', async (t) => {
  const gateway = await serve(CONFIG);
  t.after(() => gateway.stop());
  const viewer = await look(t, gateway);
  await viewer.reads('#state', '1 node');
  await viewer.reads('#connections .value', '0');
  await viewer.reads('#latency .value', 'idle');
  assert.ok(await viewer.page.getByText('Nothing is delivered.').isVisible());
  assert.ok(await viewer.page.getByText('Every client takes what is sent to it.').isVisible());

  await subscribers(t, gateway, 'prices', 3);
  await subscribers(t, gateway, 'chat', 1);
  await viewer.reads('#connections .value', '4');
  await viewer.reads('#connections .detail', '4 subscriptions');
  const publishing = publishes(t, gateway, ['prices', 'chat']);
  await viewer.reads('#deliveries .value', /^[1-9]/);
  await viewer.reads('#latency .value', /^[\d.]+ (µs|ms)$/);
  // Three deliveries for each publication are more than one.
  await viewer.reads('#channels tbody tr:nth-child(1)', /^prices 3 /);
  await viewer.reads('#channels tbody tr:nth-child(2)', /^chat 1 /);

  const slow = await RawWebSocket.open(gateway);
  t.after(() => slow.socket.destroy());
  slow.sendJson({ id: 1, connect: { token: token({ sub: USER }) } });
  await slow.reply(({ id }) => id === 1);
  slow.sendJson({ id: 2, subscribe: { channel: 'large' } });
  await slow.reply(({ id }) => id === 2);
  slow.socket.pause();
  const large = 'x'.repeat(50_000);
  await until('it cannot take more', async () => {
    await gateway.publish('large', large);
    return (await gateway.metrics()).sum('fanwire_queue_bytes') > 100_000;
  });
  await viewer.reads('#clients tbody', /\S+-\S+ <img src=x onerror="document.title=1"> .* \d+ KiB|MiB/);
  await viewer.reads('#waiting .value', /^[\d.]+ [KM]iB$/);
  await screenshot(viewer.page, 'dashboard-slow', { fullPage: true });
  assert.equal(await viewer.page.title(), 'Fanwire dashboard');
  assert.equal(await viewer.page.locator('main img').count(), 0);

  slow.socket.resume();
  await viewer.reads('#waiting .value', '0 B');
  publishing.stop();
  await until('the list is empty', () => viewer.page.getByText('Nothing is delivered.').isVisible());
});

test('every node is shown, and one that is gone', async (t) => {
  const redis = await startRedis();
  t.after(() => redis.stop());
  const config = `[broker]\nkind = "redis"\nredis = { urls = ["redis://127.0.0.1:${redis.port}"] }\n${CONFIG}`;
  const names = ['amber', 'birch', 'cedar'];
  const gateways = await Promise.all(names.map((name) => serve(`[node]\nname = "${name}"\n${config}`)));
  const [amber, birch, cedar] = gateways;
  t.after(() => Promise.all([amber, birch].map((gateway) => gateway.stop())));
  t.after(() => cedar.child.kill('SIGKILL'));
  const viewers = [await look(t, amber, DESKTOP), await look(t, amber, { ...PHONE, deviceScaleFactor: 2 })];
  const [viewer] = viewers;
  await viewer.reads('#state', '3 nodes');
  await viewer.reads('#seen-from', 'seen from amber');
  const row = (name) => `#nodes tr:has(td:text-is("${name}"))`;
  await subscribers(t, amber, 'news', 2);
  await subscribers(t, birch, 'news', 5);
  await subscribers(t, birch, LONG, 1);
  await viewer.reads(row('amber'), /^amber active 2 2 /);
  await viewer.reads(row('birch'), /^birch active 6 6 /);
  await viewer.reads('#connections .value', '8');
  const publishing = publishes(t, cedar, ['news', LONG]);
  // The sum over two nodes; and what a third one publishes is delivered there.
  await viewer.reads('#channels tbody tr:nth-child(1)', /^news 7 /);
  await viewer.reads(row('birch'), /^birch active 6 6 [1-9]/);

  await until('there is a line to see', async () => (await viewer.page.locator('#deliveries .line').getAttribute('d'))?.split('L').length > 4);
  for (const { page } of viewers) {
    for (const colorScheme of ['light', 'dark']) {
      await page.emulateMedia({ colorScheme });
      const name = page === viewer.page ? 'desktop' : 'phone';
      await screenshot(page, `dashboard-${name}-${colorScheme}`, { fullPage: true });
      assert.equal(await page.evaluate(fitsIn), true, `${name}, ${colorScheme}`);
      for (const selector of ['#seen-from', '#state', '.detail', 'th', '.state', '.chart text', 'td.bar', 'a']) {
        // Found and measured at once: the next picture has other rows.
        const ratio = await page.evaluate(`(${contrast})(document.querySelector('${selector}'))`);
        assert.ok(ratio >= 4.5, `${selector}, ${colorScheme}: contrast ${ratio.toFixed(2)}`);
      }
    }
  }
  // A pointer on a chart reads another moment of it.
  const chart = await viewer.page.locator('#connections .chart').boundingBox();
  await viewer.page.mouse.move(chart.x + 1, chart.y + chart.height / 2);
  await viewer.reads('#connections .detail', /^\d+ s ago$/);
  await viewer.page.mouse.move(0, 0);
  await viewer.reads('#connections .detail', '8 subscriptions');

  publishing.stop();
  await cedar.kill();
  await viewer.reads('#state', '1 of 3 nodes does not answer');
  await viewer.reads(row('cedar'), /^cedar silent /);
  await viewer.reads('#state', '2 nodes');
});

test('a node that is gone is no picture of calm', async (t) => {
  const gateway = await serve(CONFIG);
  const viewer = await look(t, gateway, {}, [/ERR_CONNECTION_REFUSED/]);
  await viewer.reads('#state', '1 node');
  await gateway.stop();
  await viewer.reads('#state', /^no answer since /);
  assert.equal(await viewer.page.evaluate(() => document.body.classList.contains('stale')), true);
});

test('where clients or backends are, there is no dashboard', async (t) => {
  const gateway = await serve(`[[api_key]]\nname = "a"\nsecret = "${'k'.repeat(40)}"\n${CONFIG}`, { oneAddress: true });
  t.after(() => gateway.stop());
  for (const path of ['/', '/status.json']) {
    assert.equal((await fetch(gateway.public + path)).status, 404, path);
    assert.equal((await fetch(gateway.ops + path)).status, 200, path);
  }
});

test('those who look share an answer, and nobody from elsewhere reads it', async (t) => {
  const gateway = await serve(CONFIG);
  t.after(() => gateway.stop());
  const answers = await Promise.all(Array.from({ length: 20 }, () => fetch(`${gateway.ops}/status.json`)));
  const bodies = await Promise.all(answers.map((answer) => answer.text()));
  assert.equal(new Set(bodies).size, 1);
  const { nodes, channels, clients, missing, redis } = JSON.parse(bodies[0]);
  assert.deepEqual([nodes.length, channels, clients, redis], [1, [], [], undefined]);
  assert.deepEqual(missing, { silent: [], unsupported: [], unasked: false });
  assert.equal(answers[0].headers.get('access-control-allow-origin'), null);
  const page = await fetch(gateway.ops);
  assert.match(page.headers.get('content-security-policy'), /default-src 'self'.*frame-ancestors 'none'/);
});

/** Opens the dashboard; what must not happen on it fails the test, but for messages that are `expected`. */
async function look(t, gateway, options = {}, expected = []) {
  const context = await newContext(options);
  const faults = [];
  t.after(async () => {
    await context.close();
    assert.deepEqual(faults, []);
  });
  const page = await newPage(context, new URL(gateway.ops).host, faults, expected);
  await page.goto(gateway.ops);
  return new Viewer(page);
}

class Viewer {
  constructor(page) {
    this.page = page;
  }

  /** Waits for a text in the page; the cells of a table are apart. */
  async reads(selector, expected) {
    let text;
    await until(`${selector} reads ${expected}`, async () => {
      const found = await this.page.locator(selector).first().innerText({ timeout: 2_000 }).catch(() => '');
      text = found.replace(/\s+/g, ' ').trim();
      return typeof expected === 'string' ? text === expected : expected.test(text);
    }).catch((error) => assert.fail(`${error.message}, but: ${text}`));
  }
}

/** Plain clients in a channel. */
async function subscribers(t, gateway, channel, number) {
  const open = () =>
    new Promise((resolve, reject) => {
      const socket = new WebSocket(gateway.url(`/plain?channel=${channel}`));
      t.after(() => socket.terminate());
      socket.on('open', resolve);
      socket.on('error', reject);
    });
  await Promise.all(Array.from({ length: number }, open));
}

/** Publishes in turn until it is stopped. */
function publishes(t, gateway, channels) {
  let going = true;
  const stop = () => (going = false);
  t.after(stop);
  (async () => {
    for (let n = 0; going; n += 1) {
      await gateway.publish(channels[n % channels.length], n).catch(stop);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  })();
  return { stop };
}

/* These two run in the page. */

function fitsIn() {
  return document.documentElement.scrollWidth <= innerWidth;
}

function contrast(element) {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const ground = [];
  for (let at = element; at; at = at.parentElement) ground.unshift(getComputedStyle(at).backgroundColor);
  const bar = getComputedStyle(document.documentElement).getPropertyValue('--bar');
  if (element.classList.contains('bar')) ground.push(bar);
  const luminance = (colours) => {
    for (const colour of colours) {
      canvas.fillStyle = colour;
      canvas.fillRect(0, 0, 1, 1);
    }
    const [red, green, blue] = [...canvas.getImageData(0, 0, 1, 1).data].map((value) => {
      const part = value / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const style = getComputedStyle(element);
  const text = luminance([element instanceof SVGElement ? style.fill : style.color]);
  const behind = luminance(ground);
  return (Math.max(text, behind) + 0.05) / (Math.min(text, behind) + 0.05);
}
