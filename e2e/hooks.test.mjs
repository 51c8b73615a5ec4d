// Backends that decide about clients: with the unmodified SDK on one side and a small HTTP server on the other.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';

import WebSocket from 'ws';

import { Inbox, declaredMetrics, freeAddress, serve, until, within } from './fanwire.mjs';
import { ENCODINGS } from './sdk.mjs';

const config = (url, more = '') => `
  [client]
  connect_hook = "backend"
  rpc_hook = "backend"
  refresh_hook = "backend"

  [[namespace]]
  name = "chat"
  presence = true
  subscribe_hook = "backend"
  publish_hook = "backend"
  presence_read = "subscriber"

  [[namespace]]
  name = "free"
  subscribe = "anyone"
  publish = "anyone"

  [[hook]]
  name = "backend"
  url = "${url}"
  headers = ["Cookie", "X-Forwarded-For"]
  client_headers = ["Authorization"]
  static_headers = { X-Key = "secret" }
  ${more}
`;

/** A backend that answers as `answer` says, and keeps what it was asked. */
async function listen(answer) {
  const asked = [];
  const server = createServer(async (request, response) => {
    let body = '';
    for await (const chunk of request) body += chunk;
    const question = JSON.parse(body);
    asked.push({ ...question, headers: request.headers });
    response.end(JSON.stringify(await answer(question, request.headers)));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { asked, url: `http://127.0.0.1:${server.address().port}/hook`, close: () => server.close().closeAllConnections() };
}

/** Whether somebody listens there. */
function reaches(address) {
  const [host, port] = address.split(':');
  return new Promise((resolve) => {
    const socket = net.connect(Number(port), host, () => socket.destroy() && resolve(true));
    socket.on('error', () => resolve(false));
  });
}

class WithCookie extends WebSocket {
  constructor(url, protocols) {
    super(url, protocols, { headers: { Cookie: 'user=ann', 'X-Other': 'x' } });
  }
}

function connect(t, gateway, { encoding = ENCODINGS.json, websocket = WithCookie, ...options } = {}) {
  const client = new encoding.Centrifuge(gateway.url(), { websocket, minReconnectDelay: 50, maxReconnectDelay: 200, ...options });
  t.after(() => client.disconnect());
  return client;
}

async function connected(client) {
  const context = await within(
    new Promise((resolve, reject) => {
      client.once('connected', resolve);
      client.once('disconnected', (context) => reject(Object.assign(new Error(context.reason), context)));
      client.connect();
    }),
    'the connection',
  );
  return context;
}

for (const [name, encoding] of Object.entries(ENCODINGS)) {
  describe(`a backend decides, ${name}`, () => {
    const { encode, decode } = encoding;
    let backend;
    let gateway;
    before(async () => {
      backend = await listen((question, headers) => {
        const base64 = (value) => Buffer.from(JSON.stringify(value)).toString('base64');
        if ('method' in question) {
          const data = question.data ?? JSON.parse(Buffer.from(question.b64data, 'base64'));
          if (question.method === 'fail') return { error: { code: 1234, message: 'as you wish' } };
          if (question.method === 'end') return { disconnect: { code: 4503, reason: 'as you wish' } };
          return { result: { b64data: base64({ got: data, user: question.user, meta: question.meta }) } };
        }
        if (question.channel?.startsWith('chat:closed')) return { error: { code: 403, message: 'closed' } };
        if ('channel' in question && 'data' in question && question.data.text) {
          return { result: { data: { text: question.data.text.toUpperCase() }, tags: { by: 'backend' } } };
        }
        if ('channel' in question) return { result: { info: { role: 'member' }, data: { topic: 'hooks' } } };
        if (headers.authorization === 'Bearer bad') return { disconnect: { code: 4501, reason: 'unauthorized' } };
        const user = /user=(\w+)/.exec(headers.cookie ?? '')?.[1] ?? '';
        return {
          result: { user, info: { name: user }, data: { hello: user }, meta: { secret: 7 }, subs: { 'chat:news': { data: { n: 1 } } } },
        };
      });
      gateway = await serve(config(backend.url, 'include_meta = true'));
    });
    after(async () => {
      backend.close();
      await gateway.stop();
    });

    test('who a client is, and what it is subscribed to', async (t) => {
      const client = connect(t, gateway, { encoding, data: encode({ my: 'data' }), headers: { Authorization: 'Bearer x', 'X-Not': 'y' } });
      const server = new Inbox();
      client.on('subscribed', (context) => server.push(context));
      const context = await connected(client);
      assert.deepEqual(decode(context.data), { hello: 'ann' });
      const { channel, data } = await server.first(() => true);
      assert.deepEqual([channel, decode(data)], ['chat:news', { n: 1 }]);
      const { headers, ...question } = backend.asked.at(-1);
      const [protocol, kind] = name === 'json' ? ['json', 'json'] : ['protobuf', 'binary'];
      assert.deepEqual(question, {
        client: context.client, transport: 'websocket', protocol, encoding: kind, data: { my: 'data' }, name: 'js',
      });
      assert.deepEqual(
        [headers.cookie, headers.authorization, headers['x-key'], headers['x-other'], headers['x-not']],
        ['user=ann', 'Bearer x', 'secret', undefined, undefined],
      );
      const { presence } = await gateway.api('presence', { channel: 'chat:news' });
      assert.equal(presence[context.client].user, 'ann');
    });

    test('whether it may come', async (t) => {
      const client = connect(t, gateway, { encoding, headers: { Authorization: 'Bearer bad' } });
      await assert.rejects(connected(client), { code: 4501, message: 'unauthorized' });
    });

    test('whether it may subscribe and publish, and what', async (t) => {
      const client = connect(t, gateway, { encoding });
      await connected(client);
      const inbox = new Inbox();
      const subscription = client.newSubscription('chat:lobby', { data: encode({ why: 'test' }) });
      subscription.on('publication', (publication) => inbox.push(publication));
      const subscribed = within(once(subscription, 'subscribed'), 'the subscription');
      subscription.subscribe();
      assert.deepEqual(decode((await subscribed)[0].data), { topic: 'hooks' });
      await subscription.publish(encode({ text: 'hello' }));
      const { data, info, tags } = await inbox.first(() => true);
      assert.deepEqual([decode(data), info.user, decode(info.chanInfo), tags], [{ text: 'HELLO' }, 'ann', { role: 'member' }, { by: 'backend' }]);

      const closed = client.newSubscription('chat:closed');
      const refused = within(once(closed, 'unsubscribed'), 'the refusal');
      closed.subscribe();
      assert.deepEqual([(await refused)[0].code, (await refused)[0].reason], [403, 'closed']);
      await assert.rejects(client.publish('chat:closed', encode({})), { code: 403, message: 'closed' });
    });

    test('what a call is answered', async (t) => {
      const client = connect(t, gateway, { encoding });
      await connected(client);
      const { data } = await client.rpc('echo', encode({ n: 1 }));
      assert.deepEqual(decode(data), { got: { n: 1 }, user: 'ann', meta: { secret: 7 } });
      await assert.rejects(client.rpc('fail', encode({})), { code: 1234, message: 'as you wish' });
      const ended = within(once(client, 'disconnected'), 'the end');
      client.rpc('end', encode({})).catch(() => {});
      assert.equal((await ended)[0].code, 4503);
    });
  });
}

test('a term that is over is the backend to renew', async (t) => {
  let refreshed = 0;
  const backend = await listen((question) => {
    const soon = Math.floor(Date.now() / 1000) + 1;
    if (!('user' in question)) return { result: { user: 'ann', expire_at: soon } };
    refreshed++;
    return refreshed < 3 ? { result: { expire_at: soon } } : { result: { expired: true } };
  });
  t.after(backend.close);
  const gateway = await serve(config(backend.url));
  t.after(() => gateway.stop());
  const client = connect(t, gateway);
  const lost = new Inbox();
  client.on('connecting', (context) => lost.push(context));
  await connected(client);
  const { code } = await lost.first(({ code }) => code === 3005);
  assert.deepEqual([code, refreshed], [3005, 3]);
});

test('a dead backend: the affected come back by themselves, the others notice nothing', async (t) => {
  // It takes connections, and never says a word.
  const sockets = new Set();
  const hanging = net.createServer((socket) => sockets.add(socket.on('error', () => {})));
  hanging.listen(0, '127.0.0.1');
  await once(hanging, 'listening');
  const { port } = hanging.address();
  const gateway = await serve(
    config(`http://127.0.0.1:${port}/`, 'timeout = "200ms"\nretries = 0').replace('connect_hook = "backend"', 'anonymous = true') +
      `[[namespace]]\nname = "dead"\nsubscribe_hook = "backend"\npublish_hook = "backend"\n`,
  );
  t.after(() => gateway.stop());
  const [other, affected] = [connect(t, gateway), connect(t, gateway)];
  await Promise.all([connected(other), connected(affected)]);

  await assert.rejects(affected.publish('dead:1', {}), { code: 100, message: 'backend unavailable', temporary: true });
  const subscription = affected.newSubscription('dead:1', { minResubscribeDelay: 50, maxResubscribeDelay: 200 });
  const errors = new Inbox();
  subscription.on('error', (context) => errors.push(context));
  subscription.subscribe();
  await errors.first(({ error }) => error.code === 100);
  await Promise.allSettled(Array.from({ length: 20 }, () => affected.rpc('x', {})));
  await until('the hook is open', async () => (await gateway.metrics()).sum('fanwire_hook_open') === 1);

  const inbox = new Inbox();
  const free = other.newSubscription('free:1');
  free.on('publication', ({ data }) => inbox.push(data));
  free.subscribe();
  await within(free.ready(), 'another channel');
  await free.publish({ n: 1 });
  await inbox.first(({ n }) => n === 1);

  // The backend is back, at the same address.
  for (const socket of sockets) socket.destroy();
  await new Promise((resolve) => hanging.close(resolve));
  const backend = createServer((request, response) => response.end('{"result":{}}'));
  backend.listen(port, '127.0.0.1');
  t.after(() => backend.close().closeAllConnections());
  await within(subscription.ready(), 'the subscription');
  const metrics = await gateway.metrics();
  assert.equal(metrics.sum('fanwire_hook_open'), 0);
  for (const name of declaredMetrics().hooks) {
    assert.ok(metrics.help.has(name) && metrics.samples.some((sample) => sample.name.startsWith(name)), name);
  }
});

test('a backend that is not there when clients come', async (t) => {
  const address = await freeAddress();
  const gateway = await serve(config(`http://${address}/`));
  t.after(() => gateway.stop());
  const client = connect(t, gateway);
  client.connect();
  const ended = async () => (await gateway.metrics()).sum('fanwire_disconnects_total', { reason: 'server_error' });
  await until('it has come twice', async () => (await ended()) >= 2);
  const backend = createServer((request, response) => response.end('{"result":{"user":"ann"}}'));
  const [host, port] = address.split(':');
  backend.listen(Number(port), host);
  t.after(() => backend.close().closeAllConnections());
  await within(client.ready(), 'the connection');
});

describe('the backends of docs/hooks.md', () => {
  const text = readFileSync(new URL('../docs/hooks.md', import.meta.url), 'utf8');
  for (const [language, command, ending] of [['python', 'python3', 'py'], ['js', process.execPath, 'mjs']]) {
    test(`in ${language}`, async (t) => {
      const address = await freeAddress();
      const folder = mkdtempSync(join(tmpdir(), 'fanwire-hooks-'));
      t.after(() => rmSync(folder, { recursive: true }));
      const source = new RegExp(`\`\`\`${language}\n([^]*?)\`\`\``).exec(text)[1];
      assert.match(source, /3000/);
      const file = join(folder, `backend.${ending}`);
      writeFileSync(file, source.replace('3000', address.split(':')[1]));
      const child = spawn(command, [file], { stdio: ['ignore', 'ignore', 'inherit'] });
      t.after(() => child.kill('SIGKILL'));
      await until('the backend listens', () => reaches(address));

      const gateway = await serve(config(`http://${address}/fanwire`));
      t.after(() => gateway.stop());
      const client = connect(t, gateway);
      assert.deepEqual((await connected(client)).data, { hello: 'ann' });
      assert.deepEqual((await client.rpc('add', { add: [1, 2, 3] })).data, { sum: 6 });
      const subscription = client.newSubscription('chat:staff');
      subscription.subscribe();
      await within(subscription.ready(), 'the subscription');
      const stranger = connect(t, gateway, { websocket: WebSocket });
      await assert.rejects(connected(stranger), { code: 4501 });
    });
  }
});
