// Clients of every kind on one channel at once: what one publishes, all receive, once and in the same order.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import { createInterface } from 'node:readline';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { chromium } from 'playwright-core';
import WebSocket from 'ws';

import { Inbox, environment, run, serve, until, within } from './fanwire.mjs';
import { ENCODINGS, newClient } from './sdk.mjs';

const CHANNEL = 'meeting';

let pages, browser, gateway;

before(async () => {
  pages = await servePages();
  gateway = await serve(`
    [client]
    anonymous = true
    origins = ["${pages.origin}"]

    [[namespace]]
    name = ""
    presence = true
    history_size = 100
    history_ttl = "5m"
    recovery = true
    subscribe = "anyone"
    publish = "anyone"
    history_read = "anyone"
  `);
  assert.ok(process.env.CHROMIUM, 'CHROMIUM names no browser');
  // As root Chromium runs only without its sandbox.
  const args = process.getuid() === 0 ? ['--no-sandbox'] : [];
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args });
});

after(async () => {
  await browser?.close();
  await gateway?.stop();
  pages?.server.close();
});

test('everyone receives what everyone publishes', async (t) => {
  // Each client: `open` it, have it `publish` {"from": its name, "number"}, and read its `inbox`.
  const python = pythonClients();
  const clients = [
    sdkClient('npm centrifuge, JSON', ENCODINGS.json),
    sdkClient('npm centrifuge, protobuf', ENCODINGS.protobuf),
    wsClient('npm ws'),
    pageClient('page, WebSocket', usePlainWebSocket),
    pageClient('page, centrifuge JSON', useCentrifuge, 'centrifuge.js'),
    pageClient('page, centrifuge protobuf', useCentrifuge, 'centrifuge.protobuf.js'),
  ];
  t.after(() => Promise.all([python, ...clients].map((one) => one.close())));
  await Promise.all([python, ...clients].map((one) => one.open()));
  const inboxes = new Map([...clients.map(({ name, inbox }) => [name, inbox]), ...python.inboxes]);
  assert.equal(inboxes.size, 10);

  // An open plain connection does not say yet that it is in the channel.
  await until('everyone is in the channel', async () => {
    return (await gateway.api('presence_stats', { channel: CHANNEL })).num_clients === inboxes.size;
  });
  // All at once, and each faster than the messages come back.
  const rounds = 10;
  const numbers = Array.from({ length: rounds }, (_, index) => index + 1);
  const publishing = [...clients, python].flatMap((one) => numbers.map((number) => one.publish(number)));
  await Promise.all([...publishing, ...numbers.map((number) => curl({ from: 'curl', number }))]);
  const senders = [...inboxes.keys(), 'curl'];
  const total = senders.length * rounds;
  await Promise.all([...inboxes].map(([name, inbox]) => inbox.many(total, `${total} messages at ${name}`)));

  // Whatever was sent twice stands in front of this one.
  await curl({ from: 'the end' });
  const isEnd = ({ from }) => from === 'the end';
  await Promise.all([...inboxes].map(([name, inbox]) => inbox.first(isEnd, `the last message at ${name}`)));

  const [order] = [...inboxes.values()].map((inbox) => inbox.items);
  for (const [name, { items }] of inboxes) assert.deepEqual(items, order, name);
  assert.equal(order.length, total + 1);
  for (const sender of senders) {
    const sent = order.filter(({ from }) => from === sender).map(({ number }) => number);
    // Each curl is a process of its own, so theirs come in any order.
    assert.deepEqual(sender === 'curl' ? sent.toSorted((a, b) => a - b) : sent, numbers, sender);
  }
});

test('text and binary frames of the plain protocol stay what they are', async (t) => {
  const [one, other] = [plainSocket('frames'), plainSocket('frames')];
  t.after(() => [one, other].forEach(({ socket }) => socket.close()));
  await Promise.all([one.opened, other.opened]);
  await until('both are in the channel', async () => {
    return (await gateway.api('presence_stats', { channel: 'frames' })).num_clients === 2;
  });
  const messages = [
    'no JSON, but text: grüße',
    Buffer.from([0, 255, 128, 10]),
    '{"json": true}',
    Buffer.from('{}'),
    '',
  ];
  for (const message of messages) one.socket.send(message);
  const expected = messages.map((message) => [Buffer.from(message).toString('hex'), typeof message !== 'string']);
  for (const { inbox } of [one, other]) assert.deepEqual(await inbox.many(messages.length), expected);
});

test('JSON on several lines stays one message', async (t) => {
  const value = { list: [1, { two: 'lines\nof text' }] };
  const pretty = JSON.stringify(value, null, '\t').replaceAll('\n', '\r\n');
  const { socket, inbox, opened } = plainSocket('lines');
  const rooms = Object.values(ENCODINGS).map((encoding) => {
    const client = newClient(encoding, gateway.url());
    t.after(() => client.disconnect());
    client.connect();
    const room = client.newSubscription('lines');
    room.received = new Inbox();
    room.on('publication', ({ data }) => room.received.push(encoding.decode(data)));
    room.subscribe();
    return room;
  });
  t.after(() => socket.close());
  await Promise.all([opened, ...rooms.map((room) => room.ready(10_000))]);

  socket.send(pretty);
  await inbox.many(1);
  await rooms[1].publish(Buffer.from(pretty));
  const body = `{\n"channel":\n"lines",\n"data": ${pretty}\n}`;
  assert.equal((await fetch(`${gateway.control}/api/publish`, { method: 'POST', body })).status, 200);
  for (const room of rooms) assert.deepEqual(await room.received.many(3), [value, value, value]);
  for (const [hex] of await inbox.many(3)) assert.deepEqual(JSON.parse(Buffer.from(hex, 'hex')), value);
  // And out of the history.
  const { publications } = await rooms[0].history({ limit: -1 });
  assert.deepEqual(
    publications.map(({ data }) => data),
    [value, value, value],
  );
});

test('a page of another origin gets no connection', async () => {
  const page = await browser.newPage();
  await page.goto(pages.origin.replace('127.0.0.1', 'localhost'));
  for (const path of ['/connection/websocket', `/plain?channel=${CHANNEL}`]) {
    const outcome = await page.evaluate(connectOnly, gateway.url(path));
    assert.equal(outcome, 'refused', path);
  }
  await page.goto(pages.origin);
  assert.equal(await page.evaluate(connectOnly, gateway.url(`/plain?channel=${CHANNEL}`)), 'open');
  await page.close();
});

test('a subprotocol is answered only if it is spoken', async () => {
  for (const [path, offered, expected] of [
    ['/plain?channel=meeting', [], ''],
    ['/connection/websocket', [], ''],
    ['/connection/websocket', ['chat', 'centrifuge-protobuf'], 'centrifuge-protobuf'],
    ['/connection/websocket', ['centrifuge-json'], 'centrifuge-json'],
  ]) {
    const socket = new WebSocket(gateway.url(path), offered);
    await within(once(socket, 'open'), `a connection that offers ${offered}`);
    assert.equal(socket.protocol, expected);
    socket.close();
    await within(once(socket, 'close'), 'its end');
  }
  // What is not spoken gets no answer, and by the browser's rule that ends the connection.
  const page = await browser.newPage();
  await page.goto(pages.origin);
  assert.equal(await page.evaluate(connectOnly, [gateway.url('/connection/websocket'), 'unheard-of']), 'refused');
  await page.close();
});

function sdkClient(name, encoding) {
  const client = newClient(encoding, gateway.url());
  const subscription = client.newSubscription(CHANNEL);
  const inbox = new Inbox();
  subscription.on('publication', ({ data }) => inbox.push(encoding.decode(data)));
  return {
    name,
    inbox,
    open: async () => {
      client.connect();
      subscription.subscribe();
      await subscription.ready(10_000);
    },
    publish: (number) => subscription.publish(encoding.encode({ from: name, number })),
    close: () => client.disconnect(),
  };
}

function wsClient(name) {
  const { socket, opened } = plainSocket(CHANNEL);
  const inbox = new Inbox();
  socket.on('message', (data) => inbox.push(JSON.parse(data)));
  return {
    name,
    inbox,
    open: () => opened,
    publish: (number) => socket.send(JSON.stringify({ from: name, number })),
    close: () => socket.close(),
  };
}

function plainSocket(channel) {
  const socket = new WebSocket(gateway.url(`/plain?channel=${channel}`));
  const inbox = new Inbox();
  socket.on('message', (data, isBinary) => inbox.push([data.toString('hex'), isBinary]));
  return { socket, inbox, opened: within(once(socket, 'open'), 'an open plain connection') };
}

/** A page whose `use` (run in the page) leaves `received` and `publish` in its window. */
function pageClient(name, use, script) {
  const inbox = new Inbox();
  let page;
  return {
    name,
    inbox,
    open: async () => {
      page = await browser.newPage();
      await page.exposeFunction('receive', (message) => inbox.push(message));
      await page.goto(pages.origin);
      if (script) await page.addScriptTag({ url: `/${script}` });
      await page.evaluate(use, {
        url: gateway.url(script ? undefined : `/plain?channel=${CHANNEL}`),
        channel: CHANNEL,
      });
    },
    publish: (number) => page.evaluate((message) => window.publish(message), JSON.stringify({ from: name, number })),
    close: () => page?.close(),
  };
}

// The next three run in a page.

async function usePlainWebSocket({ url }) {
  const socket = new WebSocket(url);
  socket.binaryType = 'arraybuffer';
  const text = (data) => (typeof data === 'string' ? data : new TextDecoder().decode(data));
  socket.onmessage = ({ data }) => window.receive(JSON.parse(text(data)));
  window.publish = (message) => socket.send(message);
  await new Promise((resolve) => (socket.onopen = resolve));
}

async function useCentrifuge({ url, channel }) {
  const client = new window.Centrifuge(url);
  const subscription = client.newSubscription(channel);
  const binary = (data) => data instanceof Uint8Array;
  let encode = (message) => JSON.parse(message);
  if (document.querySelector('script[src*=protobuf]')) encode = (message) => new TextEncoder().encode(message);
  subscription.on('publication', ({ data }) => {
    window.receive(binary(data) ? JSON.parse(new TextDecoder().decode(data)) : data);
  });
  window.publish = (message) => subscription.publish(encode(message));
  client.connect();
  subscription.subscribe();
  await subscription.ready(10_000);
}

function connectOnly(parameters) {
  const socket = new WebSocket(...[parameters].flat());
  return new Promise((resolve) => {
    socket.onopen = () => resolve('open');
    socket.onerror = () => resolve('refused');
  }).finally(() => socket.close());
}

/** The clients of python_clients.py. */
function pythonClients() {
  const python = fileURLToPath(new URL('../.test/venv/bin/python', import.meta.url));
  const script = fileURLToPath(new URL('python_clients.py', import.meta.url));
  const child = spawn(python, [script, gateway.url(''), CHANNEL], {
    stdio: ['pipe', 'pipe', 'inherit'],
    env: environment(),
  });
  const ended = new Promise((resolve) => child.on('close', resolve).on('error', resolve));
  const inboxes = new Map();
  let opened;
  const open = new Promise((resolve) => (opened = resolve));
  createInterface({ input: child.stdout }).on('line', (line) => {
    const { open, client, data } = JSON.parse(line);
    if (client) inboxes.get(client).push(data);
    else opened(open.forEach((name) => inboxes.set(name, new Inbox())));
  });
  return {
    inboxes,
    open: () =>
      within(Promise.race([open, ended.then((code) => Promise.reject(new Error(`Python ended: ${code}`)))]), 'Python'),
    publish: (number) => child.stdin.write(`${number}\n`),
    close: async () => {
      child.stdin.end();
      const code = await within(ended, 'the end of Python').finally(() => child.kill('SIGKILL'));
      assert.equal(code, 0);
    },
  };
}

async function curl(data) {
  const body = JSON.stringify({ channel: CHANNEL, data });
  const { code, stdout, stderr } = await run('curl', [
    '--silent',
    '--show-error',
    '--fail',
    '--data',
    body,
    `${gateway.control}/api/publish`,
  ]);
  assert.equal(code, 0, stderr);
  assert.ok(JSON.parse(stdout).result, stdout);
}

/** Serves an empty page, and the browser builds of npm centrifuge. */
async function servePages() {
  const builds = new URL('node_modules/centrifuge/dist/', import.meta.url);
  const files = new Map(
    ['centrifuge.js', 'centrifuge.protobuf.js'].map((name) => [`/${name}`, readFileSync(new URL(name, builds))]),
  );
  const server = http.createServer((request, response) => {
    const script = files.get(request.url);
    response.setHeader('Content-Type', script ? 'text/javascript' : 'text/html');
    response.end(script ?? '<!doctype html><title>empty</title>');
  });
  // Both families: the same page is reached by two names.
  server.listen(0);
  await once(server, 'listening');
  return { server, origin: `http://127.0.0.1:${server.address().port}` };
}
