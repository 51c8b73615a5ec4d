// What those who run a gateway rely on: the command line, health, metrics, an orderly end, and clients that misbehave.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import WebSocket from 'ws';

import { BINARY, Inbox, SECRET, environment, inSeconds, record, run, serve, token, until, within } from './fanwire.mjs';
import { BINARY as BINARY_FRAME, CLOSE, PING, RawWebSocket, TEXT, frame } from './raw_websocket.mjs';
import { ENCODINGS, newClient } from './sdk.mjs';

const PLAIN = '/plain?channel=';

describe('the command line', () => {
  let folder;
  before(() => (folder = mkdtempSync(join(tmpdir(), 'fanwire-e2e-'))));
  after(() => rmSync(folder, { recursive: true }));

  function file(name, text) {
    writeFileSync(join(folder, name), text);
    return join(folder, name);
  }

  test('says its version', async () => {
    const { code, stdout } = await run(BINARY, ['version']);
    assert.equal(code, 0);
    assert.match(stdout, /^fanwire \d+\.\d+\.\d+\S*\n$/);
  });

  test('accepts its own default configuration', async () => {
    const printed = await run(BINARY, ['default-config']);
    assert.equal(printed.code, 0);
    assert.match(printed.stdout, /^\[listen\]/m);
    const checked = await run(BINARY, ['check-config', '--config', file('default.toml', printed.stdout)]);
    assert.deepEqual([checked.code, checked.stderr], [0, '']);
  });

  test('tells all mistakes of a configuration at once', async () => {
    const wrong = file(
      'wrong.toml',
      '[listen]\npublic = "nowhere"\nadmin = 1\n[client]\nping_interval = "soon"\n[what]\n[[namespace]]\nname = "a"\nsubscribe = "everybody"\n',
    );
    const { code, stderr } = await run(BINARY, ['check-config', '--config', wrong], { env: { FANWIRE__NODE__WORKERS: 'many' } });
    assert.equal(code, 2);
    for (const key of ['listen.public', 'listen.admin', 'client.ping_interval', 'what', 'subscribe', 'node.workers']) {
      assert.ok(stderr.includes(key), `${key} is not in:\n${stderr}`);
    }
    // What does not serve, does not start either.
    assert.equal((await run(BINARY, ['serve', '--config', wrong])).code, 2);
  });

  test('tells that a file or a key is missing', async () => {
    for (const [config, word] of [
      [join(folder, 'missing.toml'), 'missing.toml'],
      [file('unreadable.toml', `[token]\nhmac_secret_file = "${folder}/no-secret"\n`), 'no-secret'],
      [file('short.toml', '[token]\nhmac_secret = "short"\n'), 'hmac_secret'],
      [file('no-toml.toml', 'listen: public\n'), 'no-toml.toml'],
    ]) {
      for (const command of ['check-config', 'serve']) {
        const { code, stderr } = await run(BINARY, [command, '--config', config]);
        assert.equal(code, 2, `${command} ${config}`);
        assert.ok(stderr.includes(word), stderr);
      }
    }
  });

  test('gives nobody outside the control plane without a key', async () => {
    const address = '[listen]\npublic = "127.0.0.1:0"\nops = "127.0.0.1:0"\n';
    for (const config of [`${address}control = "0.0.0.0:0"\n`, '[listen]\npublic = "127.0.0.1:7"\ncontrol = "127.0.0.1:7"\nops = "127.0.0.1:0"\n']) {
      const { code, stderr } = await run(BINARY, ['serve', '--config', file('open.toml', config)]);
      assert.equal(code, 2);
      assert.match(stderr, /api_key/);
    }
  });

  test('fails when it cannot listen', async (t) => {
    const gateway = await serve();
    t.after(() => gateway.stop());
    const taken = file('taken.toml', `[listen]\npublic = "127.0.0.1:${gateway.port}"\ncontrol = "127.0.0.1:0"\nops = "127.0.0.1:0"\n`);
    const { code, stderr } = await run(BINARY, ['serve', '--config', taken]);
    assert.equal(code, 1);
    assert.match(stderr, /cannot listen/);
  });

  test('for development: what it prints works', async (t) => {
    const anywhere = Object.fromEntries(['PUBLIC', 'CONTROL', 'OPS'].map((name) => [`FANWIRE__LISTEN__${name}`, '127.0.0.1:0']));
    const child = spawn(BINARY, ['dev'], { env: { ...environment(), ...anywhere }, stdio: ['ignore', 'pipe', 'inherit'] });
    t.after(() => child.kill('SIGKILL'));
    let printed = '';
    child.stdout.on('data', (data) => (printed += data));
    const command = await until('the curl is printed', () => /^ *(curl .*\\\n.*)\n/m.exec(printed)?.[1]);
    const [page] = /http:\S+/.exec(printed);
    const [plain] = /ws:\S+\/plain\S+/.exec(printed);

    const socket = new WebSocket(plain);
    t.after(() => socket.terminate());
    const received = new Inbox();
    socket.on('message', (data) => received.push(JSON.parse(data)));
    socket.on('open', () => socket.send('"me"'));
    await received.many(1, 'the own message');
    const { code, stderr } = await run('sh', ['-c', `${command} --noproxy '*'`]);
    assert.equal(code, 0, stderr);
    await received.many(2, 'the message of curl');
    assert.match(await (await fetch(page)).text(), /<html/i);

    const ended = new Promise((resolve) => child.on('exit', resolve));
    child.kill('SIGINT');
    assert.equal(await within(ended, 'its end on Ctrl-C'), 0);
  });
});

describe('an orderly end', () => {
  for (const signal of ['SIGTERM', 'SIGINT']) {
    test(`on ${signal} every client is told`, async () => {
      const gateway = await serve('[client]\nanonymous = true\n[[namespace]]\nsubscribe = "anyone"');
      const [live, ready] = await Promise.all(['live', 'ready'].map((name) => fetch(`${gateway.ops}/health/${name}`)));
      assert.deepEqual([live.status, ready.status], [200, 200]);
      await Promise.all([live.text(), ready.text()]);

      const native = Object.values(ENCODINGS).map((encoding) => newClient(encoding, gateway.url()));
      const logs = native.map((client) => record(client, 'connecting'));
      for (const client of native) client.connect();
      await Promise.all(native.map((client) => client.ready(10_000)));
      const [unconnected, plain] = [await RawWebSocket.open(gateway), await RawWebSocket.open(gateway, `${PLAIN}news`)];
      await until('all are counted', async () => (await gateway.metrics()).sum('fanwire_connections') === 4);

      const stopped = gateway.stop(signal);
      for (const log of logs) {
        const { code, reason } = await log.first(({ code }) => code > 0, 'the end of the connection');
        assert.deepEqual([code, reason], [3001, 'shutdown']);
      }
      for (const client of native) client.disconnect();
      assert.deepEqual(await unconnected.closed(), { code: 3001, reason: 'shutdown' });
      assert.deepEqual(await plain.closed(), { code: 1001, reason: 'shutdown' });
      await stopped;
    });
  }
});

describe('metrics', () => {
  test('all that are declared are there, and move', async (t) => {
    const gateway = await serve(`
      [client]
      anonymous = true
      [[namespace]]
      presence = true
      history_size = 10
      history_ttl = "5m"
      recovery = true
      subscribe = "anyone"
      publish = "anyone"
    `);
    t.after(() => gateway.stop());
    const client = newClient(ENCODINGS.json, gateway.url());
    t.after(() => client.disconnect());
    client.connect();
    await gateway.publish('news', 1);
    const room = client.newSubscription('news', { since: { offset: 0, epoch: '' } });
    const received = record(room, 'publication');
    room.subscribe();
    await room.publish(2);
    await received.many(2);
    await assert.rejects(client.rpc('method', {}), { code: 108 });
    await assert.rejects(gateway.api('publish', { channel: 'a:b', data: 1 }), { code: 102 });
    const bad = await RawWebSocket.open(gateway);
    bad.send(frame(TEXT, 'no JSON'));
    await bad.closed();
    bad.socket.destroy();

    const moved = {
      fanwire_build_info: 1,
      fanwire_connections: 1,
      fanwire_subscriptions: 1,
      fanwire_channels: 1,
      fanwire_publications_total: 2,
      fanwire_deliveries_total: 1,
      fanwire_writes_total: 1,
      fanwire_delivery_seconds_count: 1,
      fanwire_disconnects_total: 1,
    };
    const metrics = await until('the connection is counted as ended', async () => {
      const metrics = await gateway.metrics();
      return metrics.sum('fanwire_disconnects_total', { reason: 'bad_request' }) === 1 && metrics;
    });
    for (const [name, value] of Object.entries(moved)) assert.equal(metrics.sum(name), value, name);
    assert.deepEqual(metrics.by('fanwire_recoveries_total', 'outcome'), { complete: 1 });
    assert.deepEqual(metrics.by('fanwire_refusals_total', 'refusal'), { not_available: 1 });
    const commands = metrics.by('fanwire_commands_total', 'command');
    assert.deepEqual(commands, { connect: 1, subscribe: 1, publish: 1, rpc: 1, malformed: 1 });
    for (const name of ['fanwire_delivered_bytes_total', 'fanwire_received_bytes_total', 'fanwire_messages_received_total', 'fanwire_http_requests_total']) {
      assert.ok(metrics.sum(name) > 0, name);
    }
    assert.equal(metrics.sum('fanwire_handshakes_total', { outcome: 'accepted' }), 2);
    const calls = (outcome) => metrics.sum('fanwire_api_requests_total', { method: 'publish', outcome });
    assert.deepEqual([calls('ok'), calls('error')], [1, 1]);
    assert.ok(metrics.sum('process_resident_memory_bytes') > 0);

    // By the sources, for the exporter leaves out what was declared and never made.
    const declared = declaredMetrics();
    assert.ok(declared.length > 20, declared.join());
    const sampled = (name) => metrics.samples.some((sample) => sample.name.replace(/_(bucket|sum|count)$/, '') === name || sample.name === name);
    for (const name of declared) {
      assert.ok(metrics.help.has(name) && metrics.types.has(name), `${name} is not exported`);
      assert.ok(sampled(name), `${name} has no sample`);
    }
    for (const name of [...metrics.help, ...metrics.types.keys()]) assert.ok(sampled(name), `${name} has no sample`);
    for (const { name } of metrics.samples) {
      const family = metrics.types.has(name) ? name : name.replace(/_(bucket|sum|count)$/, '');
      assert.ok(metrics.help.has(family) && metrics.types.has(family), `${name} is not described`);
    }

    // And back.
    client.disconnect();
    await until('nobody is there', async () => {
      const metrics = await gateway.metrics();
      const left = ['connections', 'subscriptions', 'channels', 'queue_bytes'].map((name) => metrics.sum(`fanwire_${name}`));
      return left.every((value) => value === 0);
    });
  });

  function declaredMetrics() {
    const crates = fileURLToPath(new URL('../crates', import.meta.url));
    const sources = readdirSync(crates, { recursive: true }).filter((path) => /^[^/]+\/src\/.*\.rs$/.test(path));
    const declarations = sources.flatMap((path) => [
      ...readFileSync(join(crates, path), 'utf8').matchAll(/describe_(?:counter|gauge|histogram)!\(\s*"([^"]+)"/g),
    ]);
    return declarations.map(([, name]) => name);
  }
});

describe('a client that misbehaves', () => {
  let gateway, neighbours;
  let published = 0;

  before(async () => {
    gateway = await serve(`
      [node]
      workers = 1                 # the neighbours are on the same thread

      [client]
      max_message_size = 10000

      [token]
      hmac_secret = "${SECRET}"

      [[namespace]]
      name = ""
      subscribe = "anyone"
      publish = "authenticated"

      [[namespace]]
      name = "private"
      subscribe = "token"
    `);
    neighbours = await settle(gateway);
  });
  after(async () => {
    neighbours?.leave();
    await gateway?.stop();
  });

  /** Two clients in the channel `news`, with what they received. */
  async function settle(gateway) {
    const client = newClient(ENCODINGS.json, gateway.url(), { token: token({ sub: 'neighbour' }) });
    const log = record(client, 'connecting', 'disconnected', 'error');
    const room = client.newSubscription('news');
    const native = new Inbox();
    room.on('publication', ({ data }) => native.push(data));
    client.connect();
    room.subscribe();
    await room.ready(10_000);

    const socket = new WebSocket(gateway.url(`${PLAIN}news&token=${token({ sub: 'neighbour' })}`));
    const plain = new Inbox();
    socket.on('message', (data) => plain.push(JSON.parse(data)));
    socket.on('close', (code) => plain.push(`closed: ${code}`));
    socket.on('open', () => socket.send((published += 1)));
    await Promise.all([native.many(1), plain.many(1)]);
    return {
      /** All is as if nothing had happened. */
      check: async () => {
        await gateway.publish('news', (published += 1));
        const expected = Array.from({ length: published }, (_, index) => index + 1);
        for (const inbox of [native, plain]) assert.deepEqual(await inbox.many(published), expected);
        assert.deepEqual(log.items.map(({ event }) => event), ['connecting']);
      },
      leave: () => [client.disconnect(), socket.terminate()],
    };
  }

  /** What changed in the counters while `play` ran, as soon as one connection more has ended. */
  async function counted(play) {
    const scrape = async () => {
      const metrics = await gateway.metrics();
      const { by, ...rest } = { by: (name, label) => metrics.by(`fanwire_${name}_total`, label) };
      return { disconnects: by('disconnects', 'reason'), refusals: by('refusals', 'refusal'), commands: by('commands', 'command'), ...rest };
    };
    const sum = ({ disconnects }) => Object.values(disconnects).reduce((sum, value) => sum + value, 0);
    const earlier = await scrape();
    await play();
    const later = await until('its end is counted', async () => {
      const now = await scrape();
      return sum(now) > sum(earlier) && now;
    });
    const differences = Object.entries(later).map(([family, values]) => {
      const moved = Object.entries(values).map(([name, value]) => [name, value - (earlier[family][name] ?? 0)]);
      return [family, Object.fromEntries(moved.filter(([, difference]) => difference !== 0))];
    });
    return Object.fromEntries(differences);
  }

  const connect = (claims) => ({ id: 1, connect: { token: typeof claims === 'string' ? claims : token(claims) } });
  const ann = () => frame(TEXT, JSON.stringify(connect({ sub: 'ann' })));
  const text = (command) => frame(TEXT, typeof command === 'string' ? command : JSON.stringify(command));
  const bytes = (...values) => frame(BINARY_FRAME, Buffer.from(values));
  const PROTOBUF = { 'Sec-WebSocket-Protocol': 'centrifuge-protobuf' };
  const unsigned = (claims) => {
    const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
    return `${part({ alg: 'none', typ: 'JWT' })}.${part(claims)}.`;
  };
  const tampered = () => {
    const [header, , signature] = token({ sub: 'ann' }).split('.');
    return [header, Buffer.from('{"sub":"root"}').toString('base64url'), signature].join('.');
  };

  /** What it does, what it sends (after the path and the headers of its opening), and how it ends. */
  const cases = [
    // The native protocol.
    ['sends what is no JSON', ['{"id":1,'], 3501, 'bad_request'],
    ['sends JSON that is no command', ['[1,2]'], 3501, 'bad_request'],
    ['sends a field of a wrong type', ['{"id":"1","connect":{}}'], 3501, 'bad_request'],
    ['sends an empty message', [''], 3501, 'bad_request'],
    ['sends good and bad in one message', [`${JSON.stringify(connect({ sub: 'ann' }))}\nrubbish`], 3501, 'bad_request'],
    ['sends what is no protobuf', [bytes(0x05, 0xff, 0xff, 0xff, 0xff, 0xff)], 3501, 'bad_request', undefined, PROTOBUF],
    ['sends protobuf that ends too soon', [bytes(0x20, 0x08, 0x01)], 3501, 'bad_request', undefined, PROTOBUF],
    ['sends a command before it connects', [{ id: 1, subscribe: { channel: 'news' } }], 3501, 'bad_request'],
    ['sends an unknown command', [ann(), { id: 2, dance: {} }], 3501, 'bad_request'],
    ['sends a command without a number', [ann(), { subscribe: { channel: 'news' } }], 3501, 'bad_request'],
    ['connects twice', [ann(), connect({ sub: 'ann' })], 3501, 'bad_request'],
    ['answers a ping that was not sent', [ann(), '{}'], 3501, 'bad_request'],
    ['sends what nobody takes', [ann(), { send: { data: {} } }], 3508, 'not_available'],
    // Tokens.
    ['has a token that is none', [connect('rubbish')], 3500, 'invalid_token'],
    ['has a token of somebody else', [connect(token({ sub: 'ann' }, { secret: 'another secret, that nobody here has' }))], 3500, 'invalid_token'],
    ['has a token without a signature', [connect(unsigned({ sub: 'ann' }))], 3500, 'invalid_token'],
    ['has a token with a cut signature', [connect(token({ sub: 'ann' }).replace(/[^.]*$/, ''))], 3500, 'invalid_token'],
    ['has a token of an algorithm without a key', [connect(token({ sub: 'ann' }, { header: { alg: 'RS256' } }))], 3500, 'invalid_token'],
    ['has a token that was changed', [connect(tampered())], 3500, 'invalid_token'],
    ['has a subscription token', [connect({ sub: 'ann', channel: 'news' })], 3500, 'invalid_token'],
    ['has a token for later', [connect({ sub: 'ann', nbf: inSeconds(3600) })], 3500, 'invalid_token'],
    ['has a token that expires in words', [connect({ sub: 'ann', exp: 'tomorrow' })], 3500, 'invalid_token'],
    ['has a token of extraordinary size', [connect({ sub: 'a'.repeat(8000) })], 3500, 'invalid_token'],
    ['renews as another user', [ann(), { id: 2, refresh: { token: token({ sub: 'bob' }) } }], 3500, 'invalid_token'],
    ['has a token for another channel', [ann(), { id: 2, subscribe: { channel: 'private:a', token: token({ sub: 'ann', channel: 'private:b' }) } }], 3500, 'invalid_token'],
    ['has a subscription token of another user', [ann(), { id: 2, subscribe: { channel: 'private:a', token: token({ sub: 'bob', channel: 'private:a' }) } }], 3500, 'invalid_token'],
    // WebSocket.
    ['does not mask', [frame(TEXT, '{}', { masked: false })], 1002, 'protocol_error'],
    ['sets a reserved bit', [frame(TEXT, '{}', { reserved: 4 })], 1002, 'protocol_error'],
    ['sends an unknown kind of frame', [frame(0x3)], 1002, 'protocol_error'],
    ['sends a control frame that is too long', [frame(PING, Buffer.alloc(126))], 1002, 'protocol_error'],
    ['sends a control frame in pieces', [frame(PING, '', { fin: false })], 1002, 'protocol_error'],
    ['continues what was not begun', [frame(0x0, 'x')], 1002, 'protocol_error'],
    ['begins anew what was not finished', [frame(TEXT, 'x', { fin: false }), frame(TEXT, 'x')], 1002, 'protocol_error'],
    ['closes with a code that is none', [frame(CLOSE, Buffer.from([0x03, 0xed]))], 1002, 'protocol_error'],
    ['closes with half a code', [frame(CLOSE, Buffer.from([0x03]))], 1002, 'protocol_error'],
    ['sends too much', [frame(TEXT, Buffer.alloc(10_001, 'x'))], 1009, 'message_too_big'],
    ['sends too much in pieces', [frame(TEXT, Buffer.alloc(6000, 'x'), { fin: false }), frame(0x0, Buffer.alloc(6000, 'x'))], 1009, 'message_too_big'],
    ['sends text that is no UTF-8', [frame(TEXT, Buffer.from([0x22, 0xff, 0x22]))], 1007, 'invalid_payload'],
    ['sends text that is no UTF-8, in pieces', [frame(TEXT, Buffer.from([0xe2, 0x82]), { fin: false }), frame(0x0, Buffer.from([0x22]))], 1007, 'invalid_payload'],
    ['closes with a reason that is no UTF-8', [frame(CLOSE, Buffer.from([0x03, 0xe8, 0xff]))], 1007, 'invalid_payload'],
    ['sends pings without end', Array.from({ length: 1000 }, () => frame(PING, 'x')), 1008, 'policy_violation'],
    ['sends fragments without end', [frame(TEXT, '', { fin: false }), ...Array.from({ length: 1000 }, () => frame(0x0, '', { fin: false }))], 1008, 'policy_violation'],
    // The plain protocol.
    ['has no token for the plain protocol', [], 3500, 'invalid_token', `${PLAIN}news`],
    ['has a wrong token for the plain protocol', [], 3500, 'invalid_token', `${PLAIN}news&token=rubbish`],
    ['has a token for the plain protocol that is over', [], 3500, 'invalid_token', () => `${PLAIN}news&token=${token({ sub: 'ann', exp: inSeconds(-60) })}`],
    ['may not be in a plain channel', [], 3507, 'permission_denied', () => `${PLAIN}private:a&token=${token({ sub: 'ann' })}`],
    ['is in no plain channel', [], 3507, 'permission_denied', () => `${PLAIN}nowhere:a&token=${token({ sub: 'ann' })}`],
    ['may not publish in a plain channel', [frame(TEXT, 'x')], 3507, 'permission_denied', () => `${PLAIN}news&token=${token({ sub: '' })}`],
    ['sends plain text that is no UTF-8', [frame(TEXT, Buffer.from([0xff]))], 1007, 'invalid_payload', () => `${PLAIN}news&token=${token({ sub: 'ann' })}`],
  ];

  for (const [what, sent, code, reason, path, headers] of cases) {
    test(`one that ${what} is closed with ${code}`, async () => {
      const { disconnects } = await counted(async () => {
        const raw = await RawWebSocket.open(gateway, typeof path === 'function' ? path() : path, headers);
        raw.send(...sent.map((one) => (Buffer.isBuffer(one) ? one : text(one))));
        assert.equal((await raw.closed()).code, code);
        raw.socket.destroy();
      });
      assert.deepEqual(disconnects, { [reason]: 1 });
      await neighbours.check();
    });
  }

  /** What is refused without the end of the connection, and the error that says so. */
  const refusals = [
    ['a channel nobody knows', { subscribe: { channel: 'nowhere:a' } }, 102, 'unknown_channel'],
    ['a channel without a name', { subscribe: { channel: '' } }, 107, 'bad_request'],
    ['a channel it may not be in', { subscribe: { channel: 'private:a' } }, 103, 'permission_denied'],
    ['a channel with a forged token', { subscribe: { channel: 'private:a', token: 'rubbish' } }, 103, 'permission_denied'],
    ['a channel with a token that is over', () => ({ subscribe: { channel: 'private:a', token: token({ sub: 'ann', channel: 'private:a', exp: inSeconds(-60) }) } }), 109, 'token_expired'],
    ['a channel twice', { subscribe: { channel: 'twice' } }, 105, 'already_subscribed'],
    ['a kind of subscription that is not offered', { subscribe: { channel: 'news', type: 1 } }, 103, 'permission_denied'],
    ['a channel that it may not publish to', { publish: { channel: 'private:a', data: 1 } }, 103, 'permission_denied'],
    ['a publication of nothing', { publish: { channel: 'twice' } }, 107, 'bad_request'],
    ['presence where it is not allowed', { presence: { channel: 'news' } }, 103, 'permission_denied'],
    ['history where it is not allowed', { history: { channel: 'news', limit: 1 } }, 103, 'permission_denied'],
    ['a remote call', { rpc: { method: 'x' } }, 108, 'not_available'],
  ];

  for (const [what, command, code, refusal] of refusals) {
    test(`one that asks for ${what} is refused with ${code}`, async () => {
      const counts = await counted(async () => {
        const raw = await RawWebSocket.open(gateway);
        raw.send(ann(), text({ id: 2, subscribe: { channel: 'twice' } }));
        raw.sendJson({ id: 3, ...(typeof command === 'function' ? command() : command) });
        const { error } = await raw.reply(({ id }) => id === 3);
        assert.equal(error?.code, code);
        raw.sendJson({ id: 4, ping: {} });
        await raw.reply(({ id }) => id === 4, 'an answer after the refusal');
        raw.send(frame(CLOSE, Buffer.from([0x03, 0xe8])));
        assert.equal((await raw.closed()).code, 1000);
        raw.socket.destroy();
      });
      assert.deepEqual(counts.refusals, { [refusal]: 1 });
      assert.deepEqual(counts.disconnects, { connection_closed: 1 });
      await neighbours.check();
    });
  }

  for (const [what, claims, code, refusal] of [
    ['without a token', '', 101, 'unauthorized'],
    ['with a token that is over', () => token({ sub: 'ann', exp: inSeconds(-60) }), 109, 'token_expired'],
  ]) {
    test(`one that connects ${what} is refused with ${code}, and then good for nothing`, async () => {
      const counts = await counted(async () => {
        const raw = await RawWebSocket.open(gateway);
        raw.sendJson(connect(typeof claims === 'function' ? claims() : claims));
        const { error } = await raw.reply(({ id }) => id === 1);
        assert.equal(error?.code, code);
        raw.send(ann());
        assert.equal((await raw.closed()).code, 3501);
        raw.socket.destroy();
      });
      assert.deepEqual(counts.refusals, { [refusal]: 1 });
      assert.deepEqual(counts.disconnects, { bad_request: 1 });
      await neighbours.check();
    });
  }

  test('one whose JSON cannot carry what is published is closed with 3506', async () => {
    const { disconnects } = await counted(async () => {
      const raw = await RawWebSocket.open(gateway);
      raw.send(ann(), text({ id: 2, subscribe: { channel: 'bytes' } }));
      await raw.reply(({ id }) => id === 2);
      await gateway.api('publish', { channel: 'bytes', b64data: Buffer.from([0, 255]).toString('base64') });
      assert.equal((await raw.closed()).code, 3506);
      raw.socket.destroy();
    });
    assert.deepEqual(disconnects, { inappropriate_protocol: 1 });
    await neighbours.check();
  });

  test('one that leaves without a word is counted', async () => {
    const { disconnects } = await counted(async () => {
      const raw = await RawWebSocket.open(gateway);
      raw.socket.resetAndDestroy();
    });
    assert.deepEqual(disconnects, { connection_closed: 1 });
    await neighbours.check();
  });

  test('one that does not read is closed, and holds up nobody', async () => {
    const { disconnects } = await counted(async () => {
      const raw = await RawWebSocket.open(gateway);
      raw.send(ann(), text({ id: 2, subscribe: { channel: 'flood' } }));
      await raw.reply(({ id }) => id === 2);
      raw.socket.pause();
      const data = 'x'.repeat(50_000);
      // Far more than both ends' sockets and its queue hold.
      for (let round = 0; round < 40; round += 1) {
        for (let number = 0; number < 20; number += 1) await gateway.publish('flood', data);
        await neighbours.check();
        if ((await gateway.metrics()).sum('fanwire_disconnects_total', { reason: 'slow' }) > 0) break;
      }
      raw.socket.destroy();
    });
    assert.deepEqual(disconnects, { slow: 1 });
    assert.equal((await gateway.metrics()).sum('fanwire_queue_bytes'), 0);
  });

  test('requests that open nothing are answered and counted', async () => {
    const upgrade = { Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Version': '13', 'Sec-WebSocket-Key': 'AAAAAAAAAAAAAAAAAAAAAA==' };
    const rejected = async () => (await gateway.metrics()).sum('fanwire_handshakes_total', { outcome: 'rejected' });
    for (const [what, path, headers, status] of [
      ['no upgrade', '/connection/websocket', { Connection: 'close', Upgrade: '' }, 426],
      ['an old version', '/connection/websocket', { 'Sec-WebSocket-Version': '8' }, 426],
      ['a short key', '/connection/websocket', { 'Sec-WebSocket-Key': 'AAAA' }, 400],
      ['a page of another origin', '/connection/websocket', { Origin: 'https://elsewhere.example' }, 403],
      ['no channel', '/plain', {}, 400],
      ['a channel with a bad name', `${PLAIN}a%20b`, {}, 400],
    ]) {
      const before = await rejected();
      await assert.rejects(RawWebSocket.open(gateway, path, { ...upgrade, ...headers }), (error) => {
        assert.match(error.message, new RegExp(`^no upgrade: HTTP/1.1 ${status} `), what);
        return true;
      });
      await until(`${what} is counted`, async () => (await rejected()) === before + 1);
    }
    assert.equal((await fetch(`${gateway.public}/nowhere`)).status, 404);
    // The public listener carries neither of the others.
    for (const path of ['/api/info', '/metrics', '/health/ready']) assert.equal((await fetch(gateway.public + path)).status, 404, path);
    await neighbours.check();
  });
});

test('clients that say nothing are closed', async (t) => {
  const gateway = await serve(`
    [client]
    anonymous = true
    connect_timeout = "1s"
    ping_interval = "1s"
    pong_timeout = "500ms"
    [[namespace]]
    subscribe = "anyone"
  `);
  t.after(() => gateway.stop());
  const [stale, mute, plain] = [await RawWebSocket.open(gateway), await RawWebSocket.open(gateway), await RawWebSocket.open(gateway, `${PLAIN}news`)];
  mute.sendJson({ id: 1, connect: {} });
  assert.equal((await stale.closed()).code, 3502);
  assert.equal((await mute.closed()).code, 3012);
  assert.equal((await plain.closed()).code, 3012);
  for (const raw of [stale, mute, plain]) raw.socket.destroy();
  await until('they are counted', async () => {
    const { stale, no_pong } = (await gateway.metrics()).by('fanwire_disconnects_total', 'reason');
    return stale === 1 && no_pong === 2;
  });
});
