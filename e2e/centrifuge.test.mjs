// The npm package `centrifuge`, unmodified, in both encodings: everything the native protocol offers to a client.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import WebSocket from 'ws';

import { Inbox, SECRET, inSeconds, record, serve, token, until, within } from './fanwire.mjs';
import { ENCODINGS, newClient } from './sdk.mjs';
import { TcpProxy } from './tcp_proxy.mjs';

const CONFIG = `
  [client]
  anonymous = true
  personal_channel = true
  max_channels = 100
  expiry_grace = "3s"

  [token]
  hmac_secret = "${SECRET}"

  [[namespace]]                   # personal channels
  name = ""
  join_leave = true
  force_join_leave = true
  publish = "subscriber"

  [[namespace]]                   # everything is on and allowed
  name = "open"
  presence = true
  join_leave = true
  history_size = 100
  history_ttl = "5m"
  recovery = true
  subscribe = "anyone"
  publish = "anyone"
  presence_read = "anyone"
  history_read = "anyone"

  [[namespace]]                   # nothing is on, and only subscribing is allowed
  name = "bare"
  subscribe = "anyone"

  [[namespace]]                   # nothing is on, and everything is allowed
  name = "off"
  subscribe = "anyone"
  presence_read = "anyone"
  history_read = "anyone"

  [[namespace]]                   # who has a token for the channel is in
  name = "private"
  presence = true
  subscribe = "token"
  publish = "subscriber"
  presence_read = "subscriber"

  [[namespace]]                   # a history that is soon outrun
  name = "short"
  history_size = 2
  history_ttl = "5m"
  recovery = true
  subscribe = "anyone"

  [[namespace]]                   # a history that is not
  name = "long"
  history_size = 2000
  history_ttl = "5m"
  recovery = true
  subscribe = "anyone"
  publish = "anyone"

  [[namespace]]                   # the latest counts
  name = "latest"
  history_size = 1
  history_ttl = "5m"
  recovery = true
  recovery_mode = "cache"
  subscribe = "anyone"
`;

const CLIENT_EVENTS = ['connecting', 'connected', 'disconnected', 'error', 'subscribed', 'unsubscribed', 'publication', 'join', 'leave'];
const SUBSCRIPTION_EVENTS = ['subscribing', 'subscribed', 'unsubscribed', 'publication', 'join', 'leave', 'error'];

let gateway;
let serial = 0;

before(async () => {
  gateway = await serve(CONFIG);
});
after(() => gateway?.stop());

for (const [name, encoding] of Object.entries(ENCODINGS)) {
  describe(name, { concurrency: true }, () => {
    /** A client that is gone when the test is over; `log` keeps its events. */
    function client(t, options = {}, url = gateway.url()) {
      const made = newClient(encoding, url, options);
      made.log = record(made, ...CLIENT_EVENTS);
      t.after(() => made.disconnect());
      return made;
    }

    async function connected(t, options, url) {
      const made = client(t, options, url);
      made.connect();
      await made.ready(10_000);
      return made;
    }

    /** A new subscription; `log` keeps its events, with data as the values they stand for. */
    function subscription(client, channel, options = {}) {
      const made = client.newSubscription(channel, { minResubscribeDelay: 10, maxResubscribeDelay: 50, ...options });
      made.log = new Inbox();
      for (const event of SUBSCRIPTION_EVENTS) {
        made.on(event, (context) => made.log.push({ event, ...context, ...('data' in context && { data: encoding.decode(context.data) }) }));
      }
      made.subscribe();
      return made;
    }

    async function subscribed(client, channel, options) {
      const made = subscription(client, channel, options);
      await made.ready(10_000);
      return made;
    }

    /** The data of the publications, as soon as the one `last` is among them. */
    async function receivedUpTo(last, log) {
      await log.first(({ event, data }) => event === 'publication' && data === last, `publication ${JSON.stringify(last)}`);
      return log.items.filter(({ event }) => event === 'publication').map(({ data }) => data);
    }

    const is = (...events) => ({ event }) => events.includes(event);
    const count = (log, event) => log.items.filter(is(event)).length;
    const channelIn = (namespace) => `${namespace}:${name}-${(serial += 1)}`;
    const user = (id, claims) => ({ token: token({ sub: id, ...claims }) });

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
        const impatient = await serve('[client]\nanonymous = true\nping_interval = "1s"\npong_timeout = "500ms"\n[[namespace]]\nsubscribe = "anyone"');
        t.after(() => impatient.stop());
        const [pings, pongs] = [new Inbox(), new Inbox()];
        const [ping, pong] = { json: ['{}', '{}'], protobuf: ['\0', '\0'] }[name];
        class Tapped extends WebSocket {
          constructor(...parameters) {
            super(...parameters);
            this.on('message', (data) => String(data) === ping && pings.push(ping));
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
          [forged, { token: token({ sub: 'ann', channel: forged }, { secret: 'another secret, that nobody here has' }) }],
        ]) {
          const { code } = await subscription(ann, channel, options).log.first(is('unsubscribed'));
          assert.equal(code, 103);
        }
        const room = await subscribed(ann, granted, { token: token({ sub: 'ann', channel: granted, info: { seat: 7 } }) });
        const [info] = Object.values((await room.presence()).clients);
        assert.deepEqual(encoding.decode(info.chanInfo), { seat: 7 });
        assert.equal(count(ann.log, 'connecting'), 1);
      });

      test('with somebody else’s token ends the connection', async (t) => {
        for (const claims of [{ sub: 'ann', channel: 'private:another' }, { sub: 'bob', channel: 'private:this' }]) {
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
          getToken: () => ((asked += 1), asked === 1 ? new Promise(() => {}) : Promise.resolve(token({ sub: 'ann', channel }))),
        });
        const { code } = await room.log.first(({ event, code }) => event === 'subscribing' && code > 0);
        assert.equal(code, 2501);
        assert.equal(count(ann.log, 'connecting'), 1);
      });

      test('is open to the users that a channel’s name lists', async (t) => {
        const channel = `${channelIn('private')}#ann,bob`;
        const [ann, eve, nobody] = await Promise.all([connected(t, user('ann')), connected(t, user('eve')), connected(t)]);
        await subscribed(ann, channel);
        for (const other of [eve, nobody]) {
          const { code } = await subscription(other, channel).log.first(is('unsubscribed'));
          assert.equal(code, 103);
        }
      });

      test('is refused for what is no channel here', async (t) => {
        const nobody = await connected(t);
        for (const [channel, expected] of [['nowhere:1', 102], [`open:${'x'.repeat(251)}`, 107]]) {
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

    describe('in a channel', { concurrency: true }, () => {
      test('presence', async (t) => {
        const channel = channelIn('open');
        const [ann, twin, bob] = await Promise.all(['ann', 'ann', 'bob'].map((id) => connected(t, user(id))));
        const [first, second] = await Promise.all([ann, twin, bob].map((one) => subscribed(one, channel)));
        assert.deepEqual(await first.presenceStats(), { numClients: 3, numUsers: 2 });
        const { clients } = await ann.presence(channel);
        assert.deepEqual(Object.values(clients).map((info) => info.user).toSorted(), ['ann', 'ann', 'bob']);
        for (const [id, info] of Object.entries(clients)) assert.equal(info.client, id);
        // Gone as soon as the unsubscribe is processed, which is before the next command is.
        second.unsubscribe();
        assert.deepEqual(await twin.presenceStats(channel), { numClients: 2, numUsers: 2 });
        assert.equal(Object.keys((await twin.presence(channel)).clients).length, 2);
      });

      test('history', async (t) => {
        const channel = channelIn('open');
        const nobody = await connected(t);
        const empty = await nobody.history(channel, { limit: 0 });
        assert.deepEqual([empty.publications, empty.offset], [[], 0]);
        for (let number = 1; number <= 5; number += 1) await nobody.publish(channel, encoding.encode(number));
        const read = async (options) => {
          const { publications, offset, epoch } = await nobody.history(channel, options);
          assert.deepEqual([offset, epoch], [5, empty.epoch]);
          for (const { data, offset } of publications) assert.equal(encoding.decode(data), offset);
          return publications.map(({ offset }) => offset);
        };
        const since = (offset) => ({ offset, epoch: empty.epoch });
        assert.deepEqual(await read({ limit: 0 }), []);
        assert.deepEqual(await read({ limit: -1 }), [1, 2, 3, 4, 5]);
        assert.deepEqual(await read({ limit: 2 }), [1, 2]);
        assert.deepEqual(await read({ limit: 2, since: since(2) }), [3, 4]);
        assert.deepEqual(await read({ limit: -1, since: since(5) }), []);
        assert.deepEqual(await read({ limit: -1, reverse: true }), [5, 4, 3, 2, 1]);
        assert.deepEqual(await read({ limit: 2, reverse: true, since: since(4) }), [3, 2]);
        await assert.rejects(nobody.history(channel, { limit: 1, since: { offset: 1, epoch: 'another' } }), { code: 112 });
      });

      test('what is off or not allowed is refused', async (t) => {
        const nobody = await connected(t);
        const [bare, off] = [channelIn('bare'), channelIn('off')];
        await Promise.all([subscribed(nobody, bare), subscribed(nobody, off)]);
        await assert.rejects(nobody.presence(bare), { code: 103 });
        await assert.rejects(nobody.presenceStats(bare), { code: 103 });
        await assert.rejects(nobody.history(bare, { limit: 1 }), { code: 103 });
        await assert.rejects(nobody.publish(bare, encoding.encode('x')), { code: 103 });
        await assert.rejects(nobody.presence(off), { code: 108 });
        await assert.rejects(nobody.presenceStats(off), { code: 108 });
        await assert.rejects(nobody.history(off, { limit: 1 }), { code: 108 });
        await assert.rejects(nobody.publish('nowhere:1', encoding.encode('x')), { code: 102 });
        // Only subscribers may, and this one is none.
        await assert.rejects(nobody.publish(channelIn('private'), encoding.encode('x')), { code: 103 });
        assert.equal(count(nobody.log, 'connecting'), 1);
      });

      test('publications reach everyone, the publisher too, with its name', async (t) => {
        const channel = channelIn('open');
        const [ann, nobody] = await Promise.all([connected(t, user('ann')), connected(t)]);
        const rooms = await Promise.all([ann, nobody].map((one) => subscribed(one, channel)));
        const data = { text: 'grüße "an" alle \u2028\n', list: [1, null, true, 0.5], empty: {} };
        await rooms[0].publish(encoding.encode(data));
        await rooms[1].publish(encoding.encode('from nobody'));
        await gateway.api('publish', { channel, data: 'from a backend', tags: { kind: 'note' } });
        for (const { log } of rooms) {
          assert.deepEqual(await receivedUpTo('from a backend', log), [data, 'from nobody', 'from a backend']);
          const [one, two, three] = log.items.filter(is('publication'));
          assert.deepEqual([one.info?.user, two.info?.user, three.info], ['ann', '', undefined]);
          assert.deepEqual([one.offset, two.offset, three.offset], [1, 2, 3]);
          assert.deepEqual({ ...three.tags }, { kind: 'note' });
        }
      });

      test('joins and leaves reach those that ask for them', async (t) => {
        const channel = channelIn('open');
        const [asking, silent, bob] = await Promise.all([connected(t), connected(t), connected(t, user('bob'))]);
        const room = await subscribed(asking, channel, { joinLeave: true });
        const quiet = await subscribed(silent, channel);
        const visit = await subscribed(bob, channel);
        const join = await room.log.first(({ event, info }) => event === 'join' && info.user === 'bob');
        visit.unsubscribe();
        const leave = await room.log.first(is('leave'));
        assert.deepEqual(join.info, leave.info);
        assert.equal(join.info.client, (await bob.log.first(is('connected'))).client);
        await gateway.publish(channel, 'the end');
        await receivedUpTo('the end', room.log);
        await receivedUpTo('the end', quiet.log);
        const seen = (log) => log.items.filter(is('join', 'leave')).map(({ event, info }) => `${event} ${info.user}`);
        assert.deepEqual(seen(room.log).filter((line) => line.endsWith('bob')), ['join bob', 'leave bob']);
        assert.deepEqual(seen(quiet.log), []);
      });
    });

    test('remote calls are not available', async (t) => {
      const nobody = await connected(t);
      await assert.rejects(nobody.rpc('method', encoding.encode({})), { code: 108 });
      assert.equal(nobody.state, 'connected');
      await nobody.send(encoding.encode({}));
      const { code } = await nobody.log.first(is('disconnected'));
      assert.equal(code, 3508);
    });

    test('subscriptions of the server’s own', async (t) => {
      const [one, two] = [channelIn('open'), channelIn('open')];
      const id = `user-${name}`;
      const ann = client(t, user(id, { channels: [one], subs: { [two]: { data: { welcome: 'here' } } } }));
      ann.connect();
      for (const channel of [one, two, `#${id}`]) {
        const context = await ann.log.first((item) => item.event === 'subscribed' && item.channel === channel, channel);
        assert.deepEqual(encoding.decode(context.data), channel === two ? { welcome: 'here' } : undefined);
        assert.equal(context.recoverable, channel !== `#${id}`);
      }
      // It hears of its own joining where everyone does, after the reply that tells of the subscription.
      const join = await ann.log.first(is('join'));
      assert.deepEqual([join.channel, join.info.user], [`#${id}`, id]);
      assert.ok(ann.log.items.indexOf(join) > ann.log.items.findIndex(is('connected')));
      // Being subscribed by the server, it is a subscriber.
      await ann.publish(`#${id}`, encoding.encode('to myself'));
      for (const channel of [one, two]) await gateway.publish(channel, `to ${channel}`);
      const came = async (channel, data) => {
        const found = await ann.log.first((item) => item.event === 'publication' && item.channel === channel, `a publication in ${channel}`);
        assert.equal(encoding.decode(found.data), data);
      };
      await Promise.all([came(`#${id}`, 'to myself'), came(one, `to ${one}`), came(two, `to ${two}`)]);
      assert.equal(count(ann.log, 'publication'), 3);
    });

    describe('after its connection was cut', { concurrency: true }, () => {
      async function throughProxy(t) {
        const proxy = await TcpProxy.to(gateway.port);
        t.after(() => proxy.close());
        return proxy;
      }

      /** Cuts the connection, publishes these numbers to the channel, and lets the client come back. */
      async function miss(proxy, client, channel, numbers) {
        const before = count(client.log, 'connecting');
        proxy.cut();
        await until('the client noticed', () => count(client.log, 'connecting') > before);
        for (const number of numbers) await gateway.publish(channel, number);
        proxy.mend();
      }

      const again = ({ event, wasRecovering }) => event === 'subscribed' && wasRecovering;

      test('gets what it missed, once and in order', async (t) => {
        const proxy = await throughProxy(t);
        const channel = channelIn('open');
        const nobody = await connected(t, {}, proxy.url());
        const room = await subscribed(nobody, channel);
        const { recovered, wasRecovering, recoverable } = await room.log.first(is('subscribed'));
        assert.deepEqual({ recovered, wasRecovering, recoverable }, { recovered: false, wasRecovering: false, recoverable: true });
        for (const number of [1, 2, 3]) await gateway.publish(channel, number);
        await receivedUpTo(3, room.log);
        await miss(proxy, nobody, channel, [4, 5, 6, 7, 8]);
        assert.equal((await room.log.first(again)).recovered, true);
        await gateway.publish(channel, 9);
        assert.deepEqual(await receivedUpTo(9, room.log), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
        // And with nothing missed.
        const subscriptions = count(room.log, 'subscribed');
        proxy.drop();
        await until('it is back', () => count(room.log, 'subscribed') > subscriptions);
        assert.equal(room.log.items.findLast(is('subscribed')).recovered, true);
        await gateway.publish(channel, 10);
        assert.deepEqual(await receivedUpTo(10, room.log), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
      });

      test('is told when too much was missed, and gets no part of it', async (t) => {
        const proxy = await throughProxy(t);
        const channel = channelIn('short');
        const nobody = await connected(t, {}, proxy.url());
        const room = await subscribed(nobody, channel);
        await gateway.publish(channel, 1);
        await receivedUpTo(1, room.log);
        await miss(proxy, nobody, channel, [2, 3, 4, 5]);
        assert.equal((await room.log.first(again)).recovered, false);
        await gateway.publish(channel, 6);
        assert.deepEqual(await receivedUpTo(6, room.log), [1, 6]);
      });

      test('is told when the history was removed', async (t) => {
        const proxy = await throughProxy(t);
        const channel = channelIn('open');
        const nobody = await connected(t, {}, proxy.url());
        const room = await subscribed(nobody, channel);
        await gateway.publish(channel, 1);
        await receivedUpTo(1, room.log);
        proxy.cut();
        await until('the client noticed', () => count(nobody.log, 'connecting') > 1);
        await gateway.publish(channel, 2);
        await gateway.api('history_remove', { channel });
        proxy.mend();
        assert.equal((await room.log.first(again)).recovered, false);
        await gateway.publish(channel, 3);
        assert.deepEqual(await receivedUpTo(3, room.log), [1, 3]);
      });

      test('loads its state anew where that cannot be continued', async (t) => {
        const proxy = await throughProxy(t);
        const channel = channelIn('short');
        const nobody = await connected(t, {}, proxy.url());
        let loads = 0;
        const room = await subscribed(nobody, channel, {
          getState: async () => {
            loads += 1;
            const { offset, epoch } = await gateway.api('history', { channel, limit: 0 });
            return { offset, epoch };
          },
        });
        assert.equal(loads, 1);
        await gateway.publish(channel, 1);
        await receivedUpTo(1, room.log);
        await miss(proxy, nobody, channel, [2, 3]);
        await receivedUpTo(3, room.log);
        assert.equal(loads, 1);
        await miss(proxy, nobody, channel, [4, 5, 6, 7]);
        await until('the state is loaded anew', () => loads === 2);
        await until('it is back', () => room.state === 'subscribed');
        assert.equal(room.log.items.findLast(is('subscribed')).recovered, true);
        await gateway.publish(channel, 8);
        assert.deepEqual(await receivedUpTo(8, room.log), [1, 2, 3, 8]);
      });

      test('gets the latest where only that counts', async (t) => {
        const proxy = await throughProxy(t);
        const channel = channelIn('latest');
        for (const number of [1, 2, 3]) await gateway.publish(channel, number);
        const nobody = await connected(t, {}, proxy.url());
        const room = await subscribed(nobody, channel, { since: { offset: 0, epoch: '' } });
        assert.deepEqual(await receivedUpTo(3, room.log), [3]);
        await miss(proxy, nobody, channel, [4, 5, 6]);
        await receivedUpTo(6, room.log);
        assert.equal(room.log.items.findLast(is('subscribed')).recovered, true);
        const subscriptions = count(room.log, 'subscribed');
        proxy.drop();
        await until('it is back', () => count(room.log, 'subscribed') > subscriptions);
        await gateway.publish(channel, 7);
        assert.deepEqual(await receivedUpTo(7, room.log), [3, 6, 7]);
      });

      test('gets what it missed in the server’s subscriptions too', async (t) => {
        const proxy = await throughProxy(t);
        const channel = channelIn('open');
        const ann = client(t, user('ann', { channels: [channel] }), proxy.url());
        const publications = new Inbox();
        ann.on('publication', ({ data }) => publications.push({ event: 'publication', data: encoding.decode(data) }));
        ann.connect();
        await ann.log.first((item) => item.event === 'subscribed' && item.channel === channel);
        await gateway.publish(channel, 1);
        await receivedUpTo(1, publications);
        await miss(proxy, ann, channel, [2, 3, 4]);
        const back = await ann.log.first((item) => item.channel === channel && again(item));
        assert.equal(back.recovered, true);
        await gateway.publish(channel, 5);
        assert.deepEqual(await receivedUpTo(5, publications), [1, 2, 3, 4, 5]);
      });
    });

    describe('told by a backend', { concurrency: true }, () => {
      test('it is subscribed and unsubscribed', async (t) => {
        const [id, channel] = [`told-${name}`, channelIn('open')];
        const [ann, twin, bob] = await Promise.all([id, id, `other-${name}`].map((id) => connected(t, user(id))));
        await gateway.api('subscribe', { user: id, channel, data: { welcome: 'here' } });
        const here = (item) => item.channel === channel;
        for (const one of [ann, twin]) {
          const context = await one.log.first((item) => item.event === 'subscribed' && here(item));
          assert.deepEqual(encoding.decode(context.data), { welcome: 'here' });
        }
        await gateway.publish(channel, 1);
        for (const one of [ann, twin]) await one.log.first((item) => item.event === 'publication' && here(item));
        // One connection alone.
        const { client } = await twin.log.first(is('connected'));
        await gateway.api('unsubscribe', { user: id, channel, client });
        await twin.log.first((item) => item.event === 'unsubscribed' && here(item));
        await gateway.publish(channel, 2);
        await ann.log.first((item) => item.event === 'publication' && encoding.decode(item.data) === 2);
        // A round trip behind the publication: whatever came with it is here.
        await Promise.all([twin, bob].map((one) => one.presenceStats(channel)));
        assert.equal(twin.log.items.filter((item) => item.event === 'publication' && here(item)).length, 1);
        assert.equal(bob.log.items.filter(here).length, 0);
      });

      test('it is unsubscribed from what it asked for itself', async (t) => {
        const [id, channel] = [`asked-${name}`, channelIn('open')];
        const room = await subscribed(await connected(t, user(id)), channel);
        await gateway.api('unsubscribe', { user: id, channel });
        const { code } = await room.log.first(is('unsubscribed'));
        assert.equal(code, 2000);
      });

      test('it is disconnected', async (t) => {
        const id = `gone-${name}`;
        const [ann, twin] = await Promise.all([connected(t, user(id)), connected(t, user(id))]);
        const { client } = await twin.log.first(is('connected'));
        await gateway.api('disconnect', { user: id, whitelist: [client] });
        const { code } = await ann.log.first(is('disconnected'));
        assert.equal(code, 3503);
        assert.equal(twin.state, 'connected');
        await gateway.api('disconnect', { user: id, disconnect: { code: 4501, reason: 'enough' } });
        const end = await twin.log.first(is('disconnected'));
        assert.deepEqual([end.code, end.reason], [4501, 'enough']);
      });

      test('it is disconnected, and comes back if the code says so', async (t) => {
        const id = `back-${name}`;
        const ann = await connected(t, user(id));
        await gateway.api('disconnect', { user: id, disconnect: { code: 4001, reason: 'move' } });
        const { reason } = await ann.log.first(({ event, code }) => event === 'connecting' && code === 4001);
        assert.equal(reason, 'move');
        await until('it is back', () => count(ann.log, 'connected') === 2);
      });

      test('its time is changed', async (t) => {
        const id = `time-${name}`;
        const frames = new Inbox();
        class Tapped extends WebSocket {
          constructor(...parameters) {
            super(...parameters);
            this.on('message', (data) => frames.push(Buffer.from(data)));
          }
        }
        const ann = await connected(t, { ...user(id), websocket: Tapped });
        await gateway.api('refresh', { user: id, expire_at: inSeconds(3600) });
        // The library has no event for it. In protobuf: push, refresh, expires.
        const told = name === 'json' ? (frame) => frame.includes('"refresh":{"expires":true,"ttl":3') : (frame) => frame.includes(Buffer.from([0x62, 0x05, 0x08, 0x01, 0x10]));
        await frames.first(told, 'the push');
        assert.equal(ann.state, 'connected');
        await gateway.api('refresh', { user: id, expired: true });
        await ann.log.first(({ event, code }) => event === 'connecting' && code === 3005);
        await until('it is back', () => count(ann.log, 'connected') === 2);
      });
    });

    describe('in a hurry', { concurrency: true }, () => {
      test('connects and disconnects ten times at once', async (t) => {
        const made = client(t);
        for (let round = 0; round < 10; round += 1) {
          made.connect();
          made.disconnect();
        }
        made.connect();
        await made.ready(10_000);
        await subscribed(made, channelIn('open'));
        assert.deepEqual(made.log.items.filter(is('error')), []);
      });

      test('subscribes and unsubscribes ten times at once', async (t) => {
        const channel = channelIn('open');
        const made = await connected(t);
        const room = await subscribed(made, channel);
        for (let round = 0; round < 10; round += 1) {
          room.unsubscribe();
          room.subscribe();
        }
        await room.ready(10_000);
        await room.publish(encoding.encode('the end'));
        assert.deepEqual(await receivedUpTo('the end', room.log), ['the end']);
        assert.deepEqual(await room.presenceStats(), { numClients: 1, numUsers: 1 });
        assert.equal(count(made.log, 'connecting'), 1);
        assert.deepEqual([...made.log.items, ...room.log.items].filter(is('error')), []);
      });

      test('unsubscribes and disconnects at once', async (t) => {
        const channel = channelIn('open');
        const made = await connected(t);
        const room = await subscribed(made, channel);
        room.unsubscribe();
        made.disconnect();
        await until('it is out of the channel', async () => (await gateway.api('presence_stats', { channel })).num_clients === 0);
        made.connect();
        room.subscribe();
        await room.ready(10_000);
        assert.deepEqual(await room.presenceStats(), { numClients: 1, numUsers: 1 });
        assert.deepEqual([...made.log.items, ...room.log.items].filter(is('error')), []);
      });
    });

    test('a thousand messages, one by one, while consumers come and go', async (t) => {
      const channels = [channelIn('long'), channelIn('long')];
      const total = 1000;
      let over = false;
      const proxy = await TcpProxy.to(gateway.port);
      t.after(() => proxy.close());

      // Some stay, one of them over a connection that is cut again and again.
      const steady = await Promise.all([connected(t), connected(t, {}, proxy.url())]);
      const rooms = await Promise.all(steady.flatMap((one) => channels.map((channel) => subscribed(one, channel))));
      rooms[2].on('publication', ({ offset }) => offset % 100 === 0 && offset < 500 && proxy.drop());

      // Some leave the channels and come again, some close their connection.
      const restless = await Promise.all(Array.from({ length: 4 }, () => connected(t)));
      const visits = restless.flatMap((one) => channels.map((channel) => subscription(one, channel)));
      const leaving = visits.map(async (visit) => {
        while (!over) {
          await visit.ready(10_000);
          visit.unsubscribe();
          visit.subscribe();
        }
      });
      const closing = Array.from({ length: 2 }, async () => {
        const one = client(t);
        channels.forEach((channel) => visits.push(subscription(one, channel)));
        while (!over) {
          one.connect();
          await one.ready(10_000);
          one.disconnect();
        }
      });

      const publisher = await connected(t);
      for (let number = 1; number <= total; number += 1) await publisher.publish(channels[number % 2], encoding.encode(number));
      over = true;
      await within(Promise.all([...leaving, ...closing]), 'the consumers');

      // Those that stay have them all, those that come and go have some, and all have them in order.
      for (const [index, room] of rooms.entries()) {
        const parity = channels.indexOf(room.channel);
        const all = Array.from({ length: total }, (_, index) => index + 1).filter((number) => number % 2 === parity);
        assert.deepEqual(await receivedUpTo(all.at(-1), room.log), all, `subscriber ${index}`);
      }
      for (const { log } of visits) {
        const numbers = log.items.filter(is('publication')).map(({ data }) => data);
        assert.ok(numbers.every((number, index) => index === 0 || number > numbers[index - 1]), `in order: ${numbers}`);
      }
      assert.deepEqual(publisher.log.items.filter(is('error', 'disconnected')), []);
      assert.equal(count(publisher.log, 'connecting'), 1);
    });
  });
}
