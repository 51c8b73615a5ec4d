// The demo page of `fanwire dev`, in a browser.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { test } from 'node:test';

import { PHONE, newContext, newPage, screenshot } from './browser.mjs';
import { BINARY, environment, run, until, within } from './fanwire.mjs';

test('two pages and a backend talk to each other', async (t) => {
  const gateway = await dev(t);
  const [ada, grace] = [await gateway.visitor('ada'), await gateway.visitor('grace', PHONE)];

  await ada.reads('#here', '2 here');
  await grace.reads('#here', '2 here');
  await ada.reads('#people', /ada \(you\)/).then(() => ada.reads('#people', /grace/));
  await grace.reads('#people', /grace \(you\)/).then(() => grace.reads('#people', /ada/));

  await ada.says('hello, Grace');
  await grace.sees(['hello, Grace']);
  await grace.says('hello, Ada');
  await ada.sees(['hello, Grace', 'hello, Ada']);
  // What the page offers to paste, pasted.
  const { code, stderr } = await run('sh', ['-c', await ada.page.locator('#command').textContent()]);
  assert.equal(code, 0, stderr);
  for (const page of [ada, grace]) await page.sees(['hello, Grace', 'hello, Ada', 'hello from curl']);

  await ada.reads('#latency-last', /^\d+\.\d ms$/);
  await ada.reads('#state', /^connected (node \w+|fanwire [\d.]+) client \w+$/);
  await ada.reads('#wire', /connect #1 \+ subscribe #2/);
  await ada.reads('#wire', /\{"push":\{"channel":"chat:lobby","pub":\{"data":\{"text":"hello, Ada"/);

  await grace.page.close();
  await ada.reads('#here', '1 here');
});

test('a page that was unplugged shows what it missed, once and in order', async (t) => {
  const gateway = await dev(t);
  const [ada, grace] = [await gateway.visitor('ada'), await gateway.visitor('grace')];
  await ada.says('before');
  await grace.sees(['before']);

  await ada.click('Pull the plug');
  await ada.reads('#state', 'unplugged');
  await grace.reads('#here', '1 here');
  for (const text of ['one', 'two', 'three']) await grace.says(text);
  await grace.sees(['before', 'one', 'two', 'three']);
  await ada.sees(['before']);

  await ada.click('Plug back in');
  await ada.reads('.note.good', /3 missed messages recovered/);
  await grace.says('after');
  await ada.sees(['before', 'one', 'two', 'three', 'after']);
  assert.deepEqual(await ada.page.locator('.message.recovered .text').allTextContents(), ['one', 'two', 'three']);
  await grace.reads('#here', '2 here');

  await ada.click('Pull the plug');
  await ada.click('Plug back in');
  await ada.reads('.note.good >> nth=1', /no missed messages/);
  await ada.sees(['before', 'one', 'two', 'three', 'after']);
});

test('somebody alone can have a stranger talk meanwhile', async (t) => {
  const gateway = await dev(t);
  const ada = await gateway.visitor('ada');
  await ada.click('Pull the plug');
  const probe = await gateway.visitor('probe');
  await ada.click('Let a stranger say 3 things');
  await until('the stranger has spoken', async () => (await probe.texts()).length === 3);
  await ada.click('Plug back in');
  await ada.reads('.note.good', /3 missed messages recovered/);
  await ada.sees(await probe.texts());
});

test('a lost connection comes back by itself', async (t) => {
  const gateway = await dev(t);
  const ada = await gateway.visitor('ada');
  const first = await ada.page.locator('#state-client').textContent();
  await ada.click('Drop once');
  await ada.reads('.note.good', /no missed messages/);
  await ada.reads('#state', /^connected/);
  assert.notEqual(await ada.page.locator('#state-client').textContent(), first);
  await ada.says('still here');
  await ada.sees(['still here']);
});

test('a gap that cannot be filled is admitted', async (t) => {
  const gateway = await dev(t);
  const ada = await gateway.visitor('ada');
  await gateway.publish({ text: 'before' });
  await ada.sees(['before']);
  await ada.click('Pull the plug');
  // One more than history holds.
  const missed = Array.from({ length: 101 }, (_, index) => `missed ${index + 1}`);
  for (const text of missed) await gateway.publish({ text });
  await ada.click('Plug back in');
  await ada.reads('.note.bad', /recovered: false.*Messages may be missing/);
  await ada.sees(['before', ...missed.slice(-30)]);
  assert.equal(await ada.page.locator('.message.recovered').count(), 0);
});

test('who comes later reads what was said, and two tabs of a browser have two names', async (t) => {
  const gateway = await dev(t);
  const ada = await gateway.visitor('ada');
  await ada.says('first');
  await ada.says('second');
  const tab = await gateway.visitor(null, {}, ada.page.context());
  await tab.sees(['first', 'second']);
  await tab.reads('#here', '2 here');
  await until('the second tab has a name of its own', async () => (await tab.page.locator('#name').inputValue()) !== 'ada');
  assert.equal(await tab.page.locator('.note').count(), 0);
});

test('data of any shape is shown and never becomes markup', async (t) => {
  const gateway = await dev(t);
  const ada = await gateway.visitor('ada');
  const markup = '<img src=x onerror="document.title=1"><script>document.title=2</script>';
  const shapes = [null, 42, 'text', [1, 'two'], { text: 7 }, { text: null, name: { a: 1 } }, { [markup]: markup }];
  for (const data of shapes) await gateway.publish(data);
  await gateway.publish({ text: markup, name: markup, hue: 'red; --ink: red' });
  await gateway.publish({ text: 'the end' });

  await ada.sees([markup, 'the end']);
  const shown = await ada.page.locator('#log pre').allTextContents();
  assert.deepEqual(shown.map((text) => JSON.parse(text)), shapes);
  assert.equal(await ada.page.locator('#log :is(img, script), #wire :is(img, script)').count(), 0);
  assert.equal(await ada.page.title(), 'Fanwire');
});

test('frames can be read, paused and cleared', async (t) => {
  const gateway = await dev(t);
  const ada = await gateway.visitor('ada');
  const rows = ada.page.locator('#wire > li');
  await gateway.publish({ text: 'seen', answer: 42 });
  const row = rows.filter({ hasText: '"answer":42' });
  await row.getByRole('button').press('Enter');
  assert.match(await row.locator('pre').textContent(), /"push": \{\n {4}"channel": "chat:lobby"/);
  await row.getByRole('button').press('Enter');
  assert.equal(await row.locator('pre').count(), 0);

  await ada.click('Pause');
  const count = await rows.count();
  await gateway.publish({ text: 'held' });
  await ada.sees(['seen', 'held']);
  assert.equal(await rows.count(), count);
  await ada.click('Resume (1)');
  assert.match(await rows.last().textContent(), /"held"/);
  await ada.click('Clear');
  assert.equal(await rows.count(), 0);
});

test('it looks right in light, in dark and on a phone', async (t) => {
  const gateway = await dev(t);
  const ada = await gateway.visitor('ada', { viewport: { width: 1280, height: 800 } });
  const grace = await gateway.visitor('grace', { ...PHONE, deviceScaleFactor: 2 });
  await ada.says('Good morning!');
  await grace.says('Morning, Ada. This is a phone, and the line is long enough to be broken.');
  await gateway.publish({ text: 'a backend says hello' });
  await gateway.publish({ order: 17, items: ['tea', 'coffee'], paid: true });
  await ada.click('Pull the plug');
  await ada.reads('#state', 'unplugged');
  await screenshot(ada.page, 'unplugged');
  await grace.says('Where did you go?');
  await gateway.publish({ text: 'A_word_that_does_not_fit_'.repeat(10) });
  await ada.click('Plug back in');
  await ada.reads('.note.good', /2 missed messages recovered/);
  await ada.page.locator('#wire button').last().click();

  for (const { page } of [ada, grace]) {
    for (const colorScheme of ['light', 'dark']) {
      await page.emulateMedia({ colorScheme });
      const name = page === ada.page ? 'desktop' : 'phone';
      await screenshot(page, `${name}-${colorScheme}`);
      assert.equal(await page.evaluate(fitsIn), true, `${name}, ${colorScheme}`);
    }
  }
  for (const view of ['Frames', 'curl']) {
    await grace.click(view);
    await screenshot(grace.page, `phone-${view.toLowerCase()}`);
    assert.equal(await grace.page.evaluate(fitsIn), true, view);
  }
  // A name has enough contrast whatever its colour, also on the tint of recovered messages: WCAG AA.
  for (const colorScheme of ['light', 'dark']) {
    await ada.page.emulateMedia({ colorScheme });
    for (let hue = 0; hue < 360; hue += 20) {
      for (const selector of ['.message .by', '.message.recovered .by']) {
        const ratio = await ada.page.locator(selector).first().evaluate(contrast, hue);
        assert.ok(ratio >= 4.5, `${selector}, hue ${hue}, ${colorScheme}: contrast ${ratio.toFixed(2)}`);
      }
    }
  }
});

/* These two run in the page. */

function fitsIn() {
  const { scrollWidth, scrollHeight } = document.documentElement;
  return scrollWidth <= innerWidth && scrollHeight <= innerHeight;
}

function contrast(element, hue) {
  element.style.setProperty('--hue', hue);
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const luminance = (colour) => {
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [red, green, blue] = [...canvas.getImageData(0, 0, 1, 1).data].map((value) => {
      const part = value / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const text = luminance(getComputedStyle(element).color);
  const ground = luminance(getComputedStyle(element.closest('.message.recovered, section')).backgroundColor);
  return (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05);
}

/** Runs `fanwire dev` on free ports for one test, and opens its demo page for visitors. */
async function dev(t) {
  const listen = Object.fromEntries(['PUBLIC', 'CONTROL', 'OPS'].map((name) => [`FANWIRE__LISTEN__${name}`, '127.0.0.1:0']));
  const child = spawn(BINARY, ['dev'], { env: { ...environment(), ...listen } });
  const exited = new Promise((resolve) => {
    child.on('error', (error) => resolve(error.message));
    child.on('close', (code, signal) => resolve(code ?? signal));
  });
  const killed = () => child.kill('SIGKILL');
  process.on('exit', killed);
  const contexts = new Set();
  const faults = [];
  let output = '';
  t.after(async () => {
    for (const context of contexts) await context.close();
    child.kill('SIGTERM');
    const exit = await within(exited, 'the end of the gateway').finally(killed);
    process.off('exit', killed);
    assert.equal(exit, 0, output);
    assert.deepEqual(faults, []);
  });

  const addresses = new Promise((resolve) => {
    const read = (data) => {
      output += data;
      const [demo, control] = [/demo page\s+(http\S+)/, /control\s+(http\S+)/].map((line) => line.exec(output)?.[1]);
      if (demo && control && output.endsWith('\n')) resolve({ demo: new URL(demo), control: control.replace(/\/$/, '') });
    };
    child.stdout.on('data', read);
    child.stderr.on('data', read);
  });
  const early = exited.then((exit) => assert.fail(`${BINARY} ended (${exit}):\n${output}`));
  early.catch(() => {});
  const { demo, control } = await within(Promise.race([addresses, early]), () => `its addresses:\n${output}`);

  /** A page with everything that must not happen on it. */
  async function visitor(name, options = {}, context = undefined) {
    context ??= await newContext(options);
    contexts.add(context);
    const page = await newPage(context, demo.host, faults);
    await page.goto(demo.href);
    const one = new Visitor(page);
    await one.reads('#state', /^connected/);
    await one.reads('#people', /\(you\)/);
    if (name) {
      await page.getByLabel('Your name').fill(name);
      await page.keyboard.press('Tab');
      await one.reads('#people', new RegExp(`${name} \\(you\\)`));
    }
    return one;
  }

  async function publish(data) {
    const answer = await fetch(`${control}/api/publish`, { method: 'POST', body: JSON.stringify({ channel: 'chat:lobby', data }) });
    const body = await answer.json();
    assert.ok(body.result, JSON.stringify(body));
  }

  return { visitor, publish };
}

class Visitor {
  constructor(page) {
    this.page = page;
  }

  click(button) {
    return this.page.getByRole('button', { name: button, exact: true }).click();
  }

  async says(text) {
    await this.page.getByLabel('Message', { exact: true }).fill(text);
    await this.page.keyboard.press('Enter');
    // The next one would take its place.
    await until(`"${text}" is on its way`, async () => (await this.page.locator('#text').inputValue()) === '');
  }

  texts() {
    return this.page.locator('.message .text').allTextContents();
  }

  /** Waits until these messages are on the page; all of them, no other, in this order. */
  async sees(expected) {
    await until(`there are ${expected.length} messages`, async () => (await this.texts()).length >= expected.length);
    assert.deepEqual(await this.texts(), expected);
  }

  /** Waits for a text in the page. */
  async reads(selector, expected) {
    let text;
    await until(`${selector} reads ${expected}`, async () => {
      const found = await this.page.locator(selector).first().textContent({ timeout: 2_000 }).catch(() => '');
      text = found.replace(/\s+/g, ' ').trim();
      return typeof expected === 'string' ? text === expected : expected.test(text);
    }).catch((error) => assert.fail(`${error.message}, but: ${text}`));
  }
}
