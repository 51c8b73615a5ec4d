// A gateway reads its configuration again, while clients are connected.

import assert from 'node:assert/strict';
import { generateKeyPairSync, sign } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { after, before, describe, test } from 'node:test';
import { join } from 'node:path';
import { writeFileSync } from 'node:fs';

import { BINARY, SECRET, record, run, serve, token, until } from './fanwire.mjs';
import { RawWebSocket } from './raw_websocket.mjs';
import { ENCODINGS, newClient } from './sdk.mjs';

const KEY = 'the-first-secret-of-all';
const NEXT = 'the-secret-that-comes-after';

const config = ({ origins = '', secret = SECRET, namespaces = '', key = `secret = "${KEY}"`, more = '', jwks } = {}) => `
[client]
anonymous = true
origins = [${origins}]
${more}
[token]
hmac_secret = "${secret}"
${jwks ? `[[token.jwks]]\nurl = "${jwks}"` : ''}
[[api_key]]
name = "admin"
${key}
[[namespace]]
name = "chat"
subscribe = "anyone"
${namespaces}
`;

/** A server with a key set of one key; it says how often it was asked. */
async function keySet(t, kid) {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const body = JSON.stringify({ keys: [{ ...publicKey.export({ format: 'jwk' }), kid }] });
  let asked = 0;
  const url = await listen(t, (request, response) => response.end(body, () => asked++));
  const encode = (part) => Buffer.from(JSON.stringify(part)).toString('base64url');
  const signed = (claims) => {
    const message = `${encode({ alg: 'ES256', kid })}.${encode(claims)}`;
    return `${message}.${sign('sha256', message, { key: privateKey, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`;
  };
  return { url, signed, asked: () => asked };
}

/** A backend that answers every call with its name. */
async function backend(t, name) {
  return { url: await listen(t, (request, response) => response.end(JSON.stringify({ result: { data: name } }))) };
}

async function listen(t, answer) {
  const server = createServer(answer).listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close().closeAllConnections());
  return `http://127.0.0.1:${server.address().port}/`;
}

describe('a configuration that changes', () => {
  let gateway;
  let listen;
  before(async () => {
    gateway = await serve(config());
    gateway.key = KEY;
    listen = gateway.config.slice(0, gateway.config.indexOf('[client]'));
  });
  after(() => gateway.stop());

  const write = (options, head = listen) => gateway.configure(head + config(options));
  const reload = (params = {}) => gateway.api('reload', params);
  const reloads = async (outcome) => (await gateway.metrics()).sum('fanwire_config_reloads_total', { outcome });

  /** A connected client of the SDK. */
  async function connected(t, options = {}) {
    const client = newClient(ENCODINGS.json, gateway.url(), options);
    t.after(() => client.disconnect());
    const log = record(client, 'connected', 'disconnected');
    client.connect();
    await client.ready();
    return { client, log };
  }

  test('a namespace: from the next subscription on, and nobody is disconnected', async (t) => {
    const { client, log } = await connected(t);
    const before = client.newSubscription('chat:1');
    const received = record(before, 'publication');
    before.subscribe();
    await before.ready();
    await assert.rejects(before.publish(1), { code: 103 });
    const unknown = client.newSubscription('news:1');
    const refused = record(unknown, 'unsubscribed');
    unknown.subscribe();
    await refused.many(1);

    write({ namespaces: 'publish = "subscriber"\nhistory_size = 10\nhistory_ttl = "1m"\n[[namespace]]\nname = "news"\nsubscribe = "anyone"' });
    const changed = ['namespace.chat.history_size', 'namespace.chat.history_ttl', 'namespace.chat.publish', 'namespace.news'];
    const would = await reload({ dry_run: true });
    assert.deepEqual([would.changed.toSorted(), would.needs_restart], [changed, []]);
    await assert.rejects(before.publish(1), { code: 103 }, 'a dry run changes nothing');
    assert.deepEqual((await reload()).changed.toSorted(), changed);
    assert.deepEqual(await reload(), { changed: [], needs_restart: [] });

    await before.publish(2);
    await received.many(1);
    assert.equal((await gateway.api('history', { channel: 'chat:1' })).offset, 1);
    unknown.subscribe();
    await unknown.ready();
    assert.equal(log.items.length, 1, 'connected once, and never disconnected');
  });

  test('origins, by SIGHUP: for the next connection', async (t) => {
    const open = () => RawWebSocket.open(gateway, undefined, { Origin: 'https://example.com' });
    await assert.rejects(open);
    write({ origins: '"https://example.com"' });
    const before = await reloads('applied');
    gateway.child.kill('SIGHUP');
    await until('it is read', async () => (await reloads('applied')) === before + 1);
    const socket = await open();
    t.after(() => socket.socket.destroy());
  });

  test('the keys of tokens: for the next connection', async (t) => {
    const other = 'another secret that only these tests know';
    const signed = (secret) => ({ token: token({ sub: 'ann' }, { secret }) });
    const { log } = await connected(t, signed(SECRET));
    write({ secret: other });
    assert.deepEqual((await reload()).changed.includes('token'), true);
    await connected(t, signed(other));
    const client = newClient(ENCODINGS.json, gateway.url(), signed(SECRET));
    t.after(() => client.disconnect());
    const ended = record(client, 'disconnected');
    client.connect();
    await ended.many(1);
    assert.equal(ended.items[0].code, 3500);
    assert.equal(log.items.length, 1);
  });

  test('key sets: another one is fetched when it is named, and the one before counts no more', async (t) => {
    const sets = await Promise.all(['one', 'two'].map((kid) => keySet(t, kid)));
    const verdict = async ({ signed }) => {
      const client = newClient(ENCODINGS.json, gateway.url(), { token: signed({ sub: 'ann' }) });
      t.after(() => client.disconnect());
      const events = record(client, 'connected', 'disconnected');
      client.connect();
      await events.many(1);
      return events.items[0].code ?? 'connected';
    };
    const both = async () => [await verdict(sets[0]), await verdict(sets[1])];
    assert.deepEqual(await both(), [3500, 3500]);
    for (const [index, expected] of [[0, ['connected', 3500]], [1, [3500, 'connected']]]) {
      write({ jwks: sets[index].url });
      assert.ok((await reload()).changed.includes('token'));
      assert.deepEqual(await both(), expected);
      assert.equal((await gateway.metrics()).sum('fanwire_jwks_keys'), 1);
    }
    assert.equal(sets[0].asked(), 1, 'nobody asks for what counts no more');
    write({});
    await reload();
    assert.deepEqual(await both(), [3500, 3500]);
  });

  test('a hook: from the next question on, and nobody is disconnected', async (t) => {
    const backends = await Promise.all(['first', 'second'].map((name) => backend(t, name)));
    const hook = ({ url }) => `\n[[hook]]\nname = "shop"\nurl = "${url}"`;
    const more = 'rpc_hook = "shop"';
    write({ more, namespaces: hook(backends[0]) });
    assert.deepEqual((await reload()).changed, ['client.rpc_hook', 'hook.shop']);
    const { client, log } = await connected(t);
    const asked = async () => (await client.rpc('who', {})).data;
    assert.equal(await asked(), 'first');
    write({ more, namespaces: hook(backends[1]) });
    const change = { changed: ['hook.shop'], needs_restart: [] };
    assert.deepEqual(await reload({ dry_run: true }), change);
    assert.equal(await asked(), 'first');
    assert.deepEqual(await reload(), change);
    assert.equal(await asked(), 'second');
    write({ more, namespaces: `\n[[hook]]\nname = "other"\nurl = "${backends[1].url}"` });
    await assert.rejects(reload(), /there is no \[\[hook\]\]/);
    assert.equal(await asked(), 'second');
    write({});
    assert.deepEqual((await reload()).changed, ['client.rpc_hook', 'hook.shop']);
    await assert.rejects(asked(), { code: 108 });
    assert.equal(log.items.length, 1);
  });

  test('an API key whose file gets a second line, and loses the first', async () => {
    const file = join(gateway.file, '..', 'api-key');
    writeFileSync(file, KEY);
    write({ key: `secret_file = "${file}"` });
    await reload();
    const works = (key) => {
      gateway.key = key;
      return gateway.api('info').then(() => true, () => false);
    };
    assert.deepEqual([await works(NEXT), await works(KEY)], [false, true]);
    writeFileSync(file, `${KEY}\n${NEXT}\n`);
    assert.deepEqual(await reload(), { changed: ['api_key.admin'], needs_restart: [] });
    assert.deepEqual([await works(KEY), await works(NEXT)], [true, true]);
    writeFileSync(file, NEXT);
    await reload();
    assert.deepEqual([await works(KEY), await works(NEXT)], [false, true]);
    writeFileSync(file, `${KEY}\n${NEXT}`);
    await reload();
    gateway.key = KEY;
  });

  test('a wrong file changes nothing, and why is told', async () => {
    const before = await reloads('invalid');
    for (const [broken, word] of [
      [{ namespaces: 'recovery = true', origins: '"https://evil.example"' }, 'need history_size'],
      [{ more: 'no_such_key = 1' }, 'no_such_key'],
      [{ more: ']' }, 'fanwire.toml'],
    ]) {
      write(broken);
      for (const params of [{ dry_run: true }, {}]) {
        await assert.rejects(reload(params), ({ code, message }) => code === 107 && message.includes(word));
      }
    }
    assert.equal(await reloads('invalid'), before + 3, 'dry runs do not count');
    assert.equal((await gateway.metrics()).sum('fanwire_config_valid'), 0);
    assert.match(gateway.errors, /the configuration is wrong; nothing was changed mistakes="namespace \\"chat\\": recovery/);
    await assert.rejects(RawWebSocket.open(gateway, undefined, { Origin: 'https://evil.example' }));
    write({});
    await reload();
    assert.equal((await gateway.metrics()).sum('fanwire_config_valid'), 1);
  });

  test('what needs a restart is named, and left', async () => {
    const head = listen.replace(/public = "[^"]*"/, 'public = "127.0.0.1:1"').replace('"warn"', '"error"');
    write({ more: 'max_message_size = 100' }, head);
    const { needs_restart } = await reload();
    assert.deepEqual(needs_restart, ['listen.public', 'client.max_message_size', 'log.level']);
    assert.match(gateway.errors, /these changes need a restart keys="listen\.public client\.max_message_size log\.level"/);
    // The same is found again, and check-config has nothing against it.
    assert.deepEqual(await reload({ dry_run: true }), { changed: [], needs_restart });
    const { code } = await run(BINARY, ['check-config', '--config', gateway.file]);
    assert.equal(code, 0);
    write({});
    assert.deepEqual(await reload(), { changed: [], needs_restart: [] });
  });
});

test('keys cannot go while the control plane is open to the world', async (t) => {
  const gateway = await serve(config(), { oneAddress: true });
  t.after(() => gateway.stop());
  gateway.key = KEY;
  // Right by itself: the next start would listen on loopback. This one does not.
  const head = '[listen]\npublic = "127.0.0.1:7"\ncontrol = "127.0.0.1:8"\nops = "127.0.0.1:9"\n[log]\nlevel = "warn"\n';
  gateway.configure(head + config().replace(/\[\[api_key\]\]\n.*\n.*\n/, ''));
  await assert.rejects(gateway.api('reload'), /before a restart: listen\.control: .* needs an \[\[api_key\]\]/);
  gateway.key = 'no key at all';
  await assert.rejects(gateway.api('info'), /status 401/);
});
