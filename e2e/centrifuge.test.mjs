// Clients of npm `centrifuge`: connecting and subscribing, with tokens of every kind.

import assert from 'node:assert/strict';
import { createHmac, generateKeyPairSync, sign } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';

import WebSocket from 'ws';

import { Inbox, SECRET, inSeconds, serve, token, until } from './fanwire.mjs';
import { CONFIG, ENCODINGS, count, is, newClient, receivedUpTo, sdk, user } from './sdk.mjs';

const gateway = await serve(CONFIG);
after(() => gateway.stop());

for (const name of Object.keys(ENCODINGS)) {
  describe(name, { concurrency: true }, () => {
    const { encoding, client, connected, subscription, subscribed, channelIn } = sdk(gateway, name);

    describe('connecting', { concurrency: true }, () => {
      test('without a token, as nobody', async (t) => {
        const nobody = await connected(t);
        const context = await nobody.log.first(is('connected'));
        assert.match(context.client, /^[0-9a-f-]{36}$/);
        const room = await subscribed(nobody, channelIn('open'));
        const { clients } = await room.presence();
        assert.deepEqual(Object.keys(clients), [context.client]);
        assert.equal(clients[context.client].user, '');
      });

      test('with a token, as its user', async (t) => {
        const ann = await connected(t, user('ann', { info: { name: 'Ann' }, exp: inSeconds(600) }));
        const room = await subscribed(ann, channelIn('open'));
        const [info] = Object.values((await room.presence()).clients);
        assert.equal(info.user, 'ann');
        assert.deepEqual(encoding.decode(info.connInfo), { name: 'Ann' });
      });

      test('renews its token before it expires', async (t) => {
        let asked = 0;
        const made = client(t, {
          ...user('ann', { exp: inSeconds(2) }),
          // The second time only comes if the server took the first one and said how long that one lasts.
          getToken: async () => ((asked += 1), token({ sub: 'ann', exp: inSeconds(2) })),
        });
        made.connect();
        await until('the token was renewed twice', () => asked >= 2);
        assert.equal(count(made.log, 'connecting'), 1);
        assert.equal(made.state, 'connected');
      });

      test('renewing as somebody else ends it', async (t) => {
        const made = client(t, { ...user('ann', { exp: inSeconds(1) }), getToken: async () => token({ sub: 'bob' }) });
        made.connect();
        const { code } = await made.log.first(is('disconnected'));
        assert.equal(code, 3500);
      });

      test('ends when its token is not renewed', async (t) => {
        const made = client(t, { ...user('ann', { exp: inSeconds(1) }), getToken: () => new Promise(() => {}) });
        made.connect();
        const { code } = await made.log.first(({ event, code }) => event === 'connecting' && code > 0);
        assert.equal(code, 3005);
      });

      test('with an expired token, asks for another', async (t) => {
        let asked = 0;
        const made = await connected(t, {
          ...user('ann', { exp: inSeconds(-60) }),
          getToken: async () => ((asked += 1), token({ sub: 'ann' })),
        });
        assert.equal(asked, 1);
        const { error } = await made.log.first(is('error'));
        assert.equal(error.code, 109);
      });

      test('with an invalid token, is turned away', async (t) => {
        const made = client(t, { token: 'not a token' });
        made.connect();
        const { code, reason } = await made.log.first(is('disconnected'));
        assert.deepEqual([code, reason], [3500, 'invalid token']);
        assert.equal(count(made.log, 'connecting'), 1);
      });

      test('answers pings', async (t) => {
        const impatient = await serve(
          '[client]\nanonymous = true\nping_interval = "1s"\npong_timeout = "500ms"\n[[namespace]]\nsubscribe = "anyone"',
        );
        t.after(() => impatient.stop());
        const [pings, pongs] = [new Inbox(), new Inbox()];
        const [ping, pong] = { json: ['{}', '{}'], protobuf: ['\0', '\0'] }[name];
        class Tapped extends WebSocket {
          constructor(...parameters) {
            super(...parameters);
            this.on('message', (data) => Buffer.from(data).toString() === ping && pings.push(ping));
          }
          send(data, ...rest) {
            if (Buffer.from(data).toString() === pong) pongs.push(pong);
            super.send(data, ...rest);
          }
        }
        const made = await connected(t, { websocket: Tapped }, impatient.url());
        const room = await subscribed(made, 'news');
        await Promise.all([pings.many(3, 'three pings'), pongs.many(3, 'three pongs')]);
        await impatient.publish('news', 'still here');
        await receivedUpTo('still here', room.log);
        assert.equal(count(made.log, 'connecting'), 1);
        assert.equal((await impatient.metrics()).sum('fanwire_disconnects_total'), 0);
        made.disconnect();
      });
    });

    describe('subscribing', { concurrency: true }, () => {
      test('needs the namespace’s permission, or a token for the channel', async (t) => {
        const ann = await connected(t, user('ann'));
        const [refused, forged, granted] = [channelIn('private'), channelIn('private'), channelIn('private')];
        for (const [channel, options] of [
          [refused, {}],
          [
            forged,
            { token: token({ sub: 'ann', channel: forged }, { secret: 'another secret, that nobody here has' }) },
          ],
        ]) {
          const { code } = await subscription(ann, channel, options).log.first(is('unsubscribed'));
          assert.equal(code, 103);
        }
        const room = await subscribed(ann, granted, {
          token: token({ sub: 'ann', channel: granted, info: { seat: 7 } }),
        });
        const [info] = Object.values((await room.presence()).clients);
        assert.deepEqual(encoding.decode(info.chanInfo), { seat: 7 });
        assert.equal(count(ann.log, 'connecting'), 1);
      });

      test('with somebody else’s token ends the connection', async (t) => {
        for (const claims of [
          { sub: 'ann', channel: 'private:another' },
          { sub: 'bob', channel: 'private:this' },
        ]) {
          const ann = await connected(t, user('ann'));
          subscription(ann, 'private:this', { token: token(claims) });
          const { code } = await ann.log.first(is('disconnected'));
          assert.equal(code, 3500);
        }
      });

      test('renews its token before it expires', async (t) => {
        let asked = 0;
        const channel = channelIn('private');
        const ann = await connected(t, user('ann'));
        const fresh = () => token({ sub: 'ann', channel, exp: inSeconds(2) });
        const room = await subscribed(ann, channel, { token: fresh(), getToken: async () => ((asked += 1), fresh()) });
        await until('the token was renewed twice', () => asked >= 2);
        assert.equal(count(room.log, 'subscribing'), 1);
        assert.equal(room.state, 'subscribed');
      });

      test('with an expired token, asks for another', async (t) => {
        const channel = channelIn('private');
        const ann = await connected(t, user('ann'));
        const room = await subscribed(ann, channel, {
          token: token({ sub: 'ann', channel, exp: inSeconds(-60) }),
          getToken: async () => token({ sub: 'ann', channel }),
        });
        const { error } = await room.log.first(is('error'));
        assert.equal(error.code, 109);
      });

      test('ends when its token is not renewed, and begins anew', async (t) => {
        let asked = 0;
        const channel = channelIn('private');
        const ann = await connected(t, user('ann'));
        const room = await subscribed(ann, channel, {
          token: token({ sub: 'ann', channel, exp: inSeconds(1) }),
          // Silent the first time; the second comes after the end.
          getToken: () => (
            (asked += 1),
            asked === 1 ? new Promise(() => {}) : Promise.resolve(token({ sub: 'ann', channel }))
          ),
        });
        const { code } = await room.log.first(({ event, code }) => event === 'subscribing' && code > 0);
        assert.equal(code, 2501);
        assert.equal(count(ann.log, 'connecting'), 1);
      });

      test('is open to the users that a channel’s name lists', async (t) => {
        const channel = `${channelIn('private')}#ann,bob`;
        const [ann, eve, nobody] = await Promise.all([
          connected(t, user('ann')),
          connected(t, user('eve')),
          connected(t),
        ]);
        await subscribed(ann, channel);
        for (const other of [eve, nobody]) {
          const { code } = await subscription(other, channel).log.first(is('unsubscribed'));
          assert.equal(code, 103);
        }
      });

      test('is refused for what is no channel here', async (t) => {
        const nobody = await connected(t);
        for (const [channel, expected] of [
          ['nowhere:1', 102],
          [`open:${'x'.repeat(251)}`, 107],
        ]) {
          const { code } = await subscription(nobody, channel).log.first(is('unsubscribed'));
          assert.equal(code, expected, channel);
        }
        await subscribed(nobody, `open:${name}${'x'.repeat(250 - name.length)}`);
      });

      test('is refused beyond the most channels', async (t) => {
        const nobody = await connected(t);
        await Promise.all(Array.from({ length: 100 }, () => subscribed(nobody, channelIn('bare'))));
        const { code } = await subscription(nobody, channelIn('bare')).log.first(is('unsubscribed'));
        assert.equal(code, 106);
      });
    });

    test('where everything is allowed, also what tokens cannot say', async (t) => {
      const open = await serve(
        '[client]\ninsecure = true\n[[namespace]]\npresence = true\nhistory_size = 10\nhistory_ttl = "5m"\nrecovery = true',
      );
      t.after(() => open.stop());
      const channel = 'of-no-namespace:1';
      for (const options of [{}, { token: 'rubbish' }, user('ann', { exp: inSeconds(-60) })]) {
        const made = await connected(t, options, open.url());
        const room = await subscribed(made, channel, options.token && { token: options.token });
        await room.publish(encoding.encode('hello'));
        await receivedUpTo('hello', room.log);
        assert.equal((await room.presenceStats()).numClients, 1);
        assert.ok((await room.history({ limit: 10 })).publications.length > 0);
        made.disconnect();
        await until('it is gone', async () => (await open.api('presence_stats', { channel })).num_clients === 0);
      }
    });
  });
}

test('tokens of every algorithm', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'fanwire-e2e-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const file = (name, key) => {
    writeFileSync(join(folder, name), key.export({ type: 'spki', format: 'pem' }));
    return join(folder, name);
  };
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const signers = {
    HS: (hash, data) => createHmac(hash, SECRET).update(data).digest(),
    RS: (hash, data) => sign(hash, data, rsa.privateKey),
  };
  for (const [bits, namedCurve] of [
    [256, 'P-256'],
    [384, 'P-384'],
    [512, 'P-521'],
  ]) {
    const ec = generateKeyPairSync('ec', { namedCurve });
    const es = (hash, data) => sign(hash, data, { key: ec.privateKey, dsaEncoding: 'ieee-p1363' });
    const gateway = await serve(`
      [token]
      hmac_secret = "${SECRET}"
      rsa_public_key_file = "${file('rsa.pem', rsa.publicKey)}"
      ecdsa_public_key_file = "${file(`ec-${bits}.pem`, ec.publicKey)}"
    `);
    t.after(() => gateway.stop());
    for (const [family, signer] of Object.entries({ ...signers, ES: es })) {
      const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
      const signed = `${part({ alg: `${family}${bits}` })}.${part({ sub: 'ann' })}`;
      const client = newClient(ENCODINGS.json, gateway.url(), {
        token: `${signed}.${signer(`sha${bits}`, Buffer.from(signed)).toString('base64url')}`,
      });
      t.after(() => client.disconnect());
      client.connect();
      await client.ready(10_000);
    }
    assert.equal((await gateway.api('info')).nodes[0].num_clients, 3);
  }
});
