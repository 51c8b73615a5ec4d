// What those who run a gateway rely on: the command line, health, metrics, an orderly end.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';

import WebSocket from 'ws';

import { BINARY, Inbox, declaredMetrics, environment, record, run, serve, until, within } from './fanwire.mjs';
import { RawWebSocket, TEXT, frame } from './raw_websocket.mjs';
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

  test('asks a node whether it is well', async (t) => {
    const gateway = await serve();
    t.after(() => gateway.child.kill('SIGKILL'));
    const ask = (...args) => run(BINARY, ['health', ...args]);
    const live = await ask('--url', `${gateway.ops}/health/live`);
    assert.deepEqual([live.code, live.stdout], [0, '200 {"status":"live"}\n']);
    assert.equal((await ask('--url', `${gateway.ops}/health/ready`)).code, 0);
    const nothing = await ask('--url', `${gateway.ops}/nothing`);
    assert.deepEqual([nothing.code, nothing.stdout.slice(0, 3)], [1, '404']);
    await gateway.stop();
    const gone = await ask('--url', `${gateway.ops}/health/live`);
    assert.equal(gone.code, 1);
    assert.match(gone.stdout, /^cannot ask http:.*refused/);
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
    const { code, stderr } = await run(BINARY, ['check-config', '--config', wrong], {
      env: { FANWIRE__NODE__WORKERS: 'many' },
    });
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
    for (const config of [
      `${address}control = "0.0.0.0:0"\n`,
      '[listen]\npublic = "127.0.0.1:7"\ncontrol = "127.0.0.1:7"\nops = "127.0.0.1:0"\n',
    ]) {
      const { code, stderr } = await run(BINARY, ['serve', '--config', file('open.toml', config)]);
      assert.equal(code, 2);
      assert.match(stderr, /api_key/);
    }
  });

  test('fails when it cannot listen', async (t) => {
    const gateway = await serve();
    t.after(() => gateway.stop());
    const taken = file(
      'taken.toml',
      `[listen]\npublic = "127.0.0.1:${gateway.port}"\ncontrol = "127.0.0.1:0"\nops = "127.0.0.1:0"\n`,
    );
    const { code, stderr } = await run(BINARY, ['serve', '--config', taken]);
    assert.equal(code, 1);
    assert.match(stderr, /cannot listen/);
  });

  test('for development: what it prints works', async (t) => {
    const anywhere = Object.fromEntries(
      ['PUBLIC', 'CONTROL', 'OPS'].map((name) => [`FANWIRE__LISTEN__${name}`, '127.0.0.1:0']),
    );
    const child = spawn(BINARY, ['dev'], {
      env: { ...environment(), ...anywhere },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
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

describe('the log', () => {
  test('is a JSON object on each line, if wanted', async (t) => {
    const gateway = await serve('[[api_key]]\nname = "shop"\nsecret = "0123456789abcdef"\n', { log: 'format = "json"' });
    t.after(() => gateway.child.kill('SIGKILL'));
    gateway.key = '0123456789abcdef';
    await gateway.api('disconnect', { user: 'ann "and" bob' });
    await gateway.stop();
    const lines = gateway.errors.trimEnd().split('\n').map((line) => JSON.parse(line));
    const call = lines.find(({ message }) => message === 'call');
    const { timestamp, level, target, key, method, user, outcome } = call;
    assert.deepEqual(
      { level, target, key, method, user, outcome },
      { level: 'INFO', target: 'fanwire::audit', key: 'shop', method: 'disconnect', user: 'ann "and" bob', outcome: 'ok' },
    );
    assert.ok(Math.abs(Date.parse(timestamp) - Date.now()) < 60_000, timestamp);
    assert.ok(lines.some((line) => line.level === 'WARN' && /no \[\[namespace\]\]/.test(line.message)), gateway.errors);
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
      [[api_key]]
      name = "backend"
      secret = "0123456789abcdef"
    `);
    t.after(() => gateway.stop());
    gateway.key = '0123456789abcdef';
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
    // Some gauges follow within a second.
    const metrics = await until('all is counted', async () => {
      const metrics = await gateway.metrics();
      return (
        metrics.sum('fanwire_disconnects_total', { reason: 'bad_request' }) === 1 &&
        metrics.sum('fanwire_channels') === 1 &&
        metrics
      );
    });
    for (const [name, value] of Object.entries(moved)) assert.equal(metrics.sum(name), value, name);
    assert.deepEqual(metrics.by('fanwire_recoveries_total', 'outcome'), { complete: 1 });
    assert.deepEqual(metrics.by('fanwire_refusals_total', 'refusal'), { not_available: 1 });
    const commands = metrics.by('fanwire_commands_total', 'command');
    assert.deepEqual(commands, { connect: 1, subscribe: 1, publish: 1, rpc: 1, malformed: 1 });
    for (const name of [
      'fanwire_delivered_bytes_total',
      'fanwire_received_bytes_total',
      'fanwire_messages_received_total',
      'fanwire_http_requests_total',
    ]) {
      assert.ok(metrics.sum(name) > 0, name);
    }
    assert.equal(metrics.sum('fanwire_handshakes_total', { outcome: 'accepted' }), 2);
    const calls = (outcome) => metrics.sum('fanwire_api_requests_total', { method: 'publish', outcome });
    assert.deepEqual([calls('ok'), calls('error')], [1, 1]);
    const byKey = (outcome) => metrics.sum('fanwire_api_key_requests_total', { key: 'backend', outcome });
    assert.deepEqual([byKey('ok'), byKey('error')], [1, 1]);
    assert.ok(metrics.sum('process_resident_memory_bytes') > 0);

    // By the sources, for the exporter leaves out what was declared and never made.
    const declared = declaredMetrics().memory;
    assert.ok(declared.length > 20, declared.join());
    const sampled = (name) =>
      metrics.samples.some(
        (sample) => sample.name.replace(/_(bucket|sum|count)$/, '') === name || sample.name === name,
      );
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
      const left = ['connections', 'subscriptions', 'channels', 'queue_bytes'].map((name) =>
        metrics.sum(`fanwire_${name}`),
      );
      return left.every((value) => value === 0);
    });
  });
});
