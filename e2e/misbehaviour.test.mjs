// Clients that misbehave: each ends in its documented code and is counted, and its neighbours notice nothing.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import WebSocket from 'ws';

import { Inbox, SECRET, inSeconds, record, serve, token, until } from './fanwire.mjs';
import { BINARY, CLOSE, PING, RawWebSocket, TEXT, frame } from './raw_websocket.mjs';
import { ENCODINGS, newClient } from './sdk.mjs';

const PLAIN = '/plain?channel=';

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
        assert.deepEqual(
          log.items.map(({ event }) => event),
          ['connecting'],
        );
      },
      leave: () => [client.disconnect(), socket.terminate()],
    };
  }

  /** What changed in the counters while `play` ran, as soon as one connection more has ended. */
  async function counted(play) {
    const scrape = async () => {
      const metrics = await gateway.metrics();
      const { by, ...rest } = { by: (name, label) => metrics.by(`fanwire_${name}_total`, label) };
      return {
        disconnects: by('disconnects', 'reason'),
        refusals: by('refusals', 'refusal'),
        commands: by('commands', 'command'),
        ...rest,
      };
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
  const bytes = (...values) => frame(BINARY, Buffer.from(values));
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
    [
      'sends what is no protobuf',
      [bytes(0x05, 0xff, 0xff, 0xff, 0xff, 0xff)],
      3501,
      'bad_request',
      undefined,
      PROTOBUF,
    ],
    ['sends protobuf that ends too soon', [bytes(0x20, 0x08, 0x01)], 3501, 'bad_request', undefined, PROTOBUF],
    ['sends a command before it connects', [{ id: 1, subscribe: { channel: 'news' } }], 3501, 'bad_request'],
    ['sends an unknown command', [ann(), { id: 2, dance: {} }], 3501, 'bad_request'],
    ['sends a command without a number', [ann(), { subscribe: { channel: 'news' } }], 3501, 'bad_request'],
    ['connects twice', [ann(), connect({ sub: 'ann' })], 3501, 'bad_request'],
    ['answers a ping that was not sent', [ann(), '{}'], 3501, 'bad_request'],
    ['sends what nobody takes', [ann(), { send: { data: {} } }], 3508, 'not_available'],
    // Tokens.
    ['has a token that is none', [connect('rubbish')], 3500, 'invalid_token'],
    [
      'has a token of somebody else',
      [connect(token({ sub: 'ann' }, { secret: 'another secret, that nobody here has' }))],
      3500,
      'invalid_token',
    ],
    ['has a token without a signature', [connect(unsigned({ sub: 'ann' }))], 3500, 'invalid_token'],
    ['has a token with a cut signature', [connect(token({ sub: 'ann' }).replace(/[^.]*$/, ''))], 3500, 'invalid_token'],
    [
      'has a token of an algorithm without a key',
      [connect(token({ sub: 'ann' }, { header: { alg: 'RS256' } }))],
      3500,
      'invalid_token',
    ],
    ['has a token that was changed', [connect(tampered())], 3500, 'invalid_token'],
    ['has a subscription token', [connect({ sub: 'ann', channel: 'news' })], 3500, 'invalid_token'],
    ['has a token that expires in words', [connect({ sub: 'ann', exp: 'tomorrow' })], 3500, 'invalid_token'],
    ['has a token of extraordinary size', [connect({ sub: 'a'.repeat(7000) })], 3500, 'invalid_token'],
    ['renews as another user', [ann(), { id: 2, refresh: { token: token({ sub: 'bob' }) } }], 3500, 'invalid_token'],
    [
      'has a token for another channel',
      [ann(), { id: 2, subscribe: { channel: 'private:a', token: token({ sub: 'ann', channel: 'private:b' }) } }],
      3500,
      'invalid_token',
    ],
    [
      'has a subscription token of another user',
      [ann(), { id: 2, subscribe: { channel: 'private:a', token: token({ sub: 'bob', channel: 'private:a' }) } }],
      3500,
      'invalid_token',
    ],
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
    [
      'sends too much in pieces',
      [frame(TEXT, Buffer.alloc(6000, 'x'), { fin: false }), frame(0x0, Buffer.alloc(6000, 'x'))],
      1009,
      'message_too_big',
    ],
    ['sends text that is no UTF-8', [frame(TEXT, Buffer.from([0x22, 0xff, 0x22]))], 1007, 'invalid_payload'],
    [
      'sends text that is no UTF-8, in pieces',
      [frame(TEXT, Buffer.from([0xe2, 0x82]), { fin: false }), frame(0x0, Buffer.from([0x22]))],
      1007,
      'invalid_payload',
    ],
    ['closes with a reason that is no UTF-8', [frame(CLOSE, Buffer.from([0x03, 0xe8, 0xff]))], 1007, 'invalid_payload'],
    ['sends pings without end', Array.from({ length: 1000 }, () => frame(PING, 'x')), 1008, 'policy_violation'],
    [
      'sends fragments without end',
      [frame(TEXT, '', { fin: false }), ...Array.from({ length: 1000 }, () => frame(0x0, '', { fin: false }))],
      1008,
      'policy_violation',
    ],
    // The plain protocol.
    ['has no token for the plain protocol', [], 3500, 'invalid_token', `${PLAIN}news`],
    ['has a wrong token for the plain protocol', [], 3500, 'invalid_token', `${PLAIN}news&token=rubbish`],
    [
      'has a token for the plain protocol that is over',
      [],
      3500,
      'invalid_token',
      () => `${PLAIN}news&token=${token({ sub: 'ann', exp: inSeconds(-60) })}`,
    ],
    [
      'may not be in a plain channel',
      [],
      3507,
      'permission_denied',
      () => `${PLAIN}private:a&token=${token({ sub: 'ann' })}`,
    ],
    ['is in no plain channel', [], 3507, 'permission_denied', () => `${PLAIN}nowhere:a&token=${token({ sub: 'ann' })}`],
    [
      'may not publish in a plain channel',
      [frame(TEXT, 'x')],
      3507,
      'permission_denied',
      () => `${PLAIN}news&token=${token({ sub: '' })}`,
    ],
    [
      'sends plain text that is no UTF-8',
      [frame(TEXT, Buffer.from([0xff]))],
      1007,
      'invalid_payload',
      () => `${PLAIN}news&token=${token({ sub: 'ann' })}`,
    ],
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
    [
      'a channel with a forged token',
      { subscribe: { channel: 'private:a', token: 'rubbish' } },
      103,
      'permission_denied',
    ],
    [
      'a channel with a token that is over',
      () => ({
        subscribe: { channel: 'private:a', token: token({ sub: 'ann', channel: 'private:a', exp: inSeconds(-60) }) },
      }),
      109,
      'token_expired',
    ],
    ['a channel twice', { subscribe: { channel: 'twice' } }, 105, 'already_subscribed'],
    [
      'a kind of subscription that is not offered',
      { subscribe: { channel: 'news', type: 1 } },
      103,
      'permission_denied',
    ],
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
    ['with a token for later', () => token({ sub: 'ann', nbf: inSeconds(3600) }), 109, 'token_expired'],
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
    const upgrade = {
      Connection: 'Upgrade',
      Upgrade: 'websocket',
      'Sec-WebSocket-Version': '13',
      'Sec-WebSocket-Key': 'AAAAAAAAAAAAAAAAAAAAAA==',
    };
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
    for (const path of ['/api/info', '/metrics', '/health/ready'])
      assert.equal((await fetch(gateway.public + path)).status, 404, path);
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
  const [stale, mute, plain] = [
    await RawWebSocket.open(gateway),
    await RawWebSocket.open(gateway),
    await RawWebSocket.open(gateway, `${PLAIN}news`),
  ];
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
