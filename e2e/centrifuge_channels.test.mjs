// Clients of npm `centrifuge`: what happens in channels, and what a backend does to clients.

import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';

import WebSocket from 'ws';

import { Inbox, inSeconds, serve, until } from './fanwire.mjs';
import { CONFIG, ENCODINGS, count, is, receivedUpTo, sdk, user } from './sdk.mjs';

const gateway = await serve(CONFIG);
after(() => gateway.stop());

for (const name of Object.keys(ENCODINGS)) {
  describe(name, { concurrency: true }, () => {
    const { encoding, client, connected, subscription, subscribed, channelIn } = sdk(gateway, name);

    describe('in a channel', { concurrency: true }, () => {
      test('presence', async (t) => {
        const channel = channelIn('open');
        const [ann, twin, bob] = await Promise.all(['ann', 'ann', 'bob'].map((id) => connected(t, user(id))));
        const [first, second] = await Promise.all([ann, twin, bob].map((one) => subscribed(one, channel)));
        assert.deepEqual(await first.presenceStats(), { numClients: 3, numUsers: 2 });
        const { clients } = await ann.presence(channel);
        assert.deepEqual(
          Object.values(clients)
            .map((info) => info.user)
            .toSorted(),
          ['ann', 'ann', 'bob'],
        );
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
        await assert.rejects(nobody.history(channel, { limit: 1, since: { offset: 1, epoch: 'another' } }), {
          code: 112,
        });
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
        assert.deepEqual(
          seen(room.log).filter((line) => line.endsWith('bob')),
          ['join bob', 'leave bob'],
        );
        assert.deepEqual(seen(quiet.log), []);
      });

      test('deltas that are asked for are whole publications, for there are none', async (t) => {
        const channel = channelIn('open');
        const room = await subscribed(await connected(t), channel, { delta: 'fossil' });
        const texts = ['a long text that changes little', 'a long text that changes a little'];
        for (const text of texts) await gateway.publish(channel, text);
        assert.deepEqual(await receivedUpTo(texts[1], room.log), texts);
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
        const found = await ann.log.first(
          (item) => item.event === 'publication' && item.channel === channel,
          `a publication in ${channel}`,
        );
        assert.equal(encoding.decode(found.data), data);
      };
      await Promise.all([came(`#${id}`, 'to myself'), came(one, `to ${one}`), came(two, `to ${two}`)]);
      assert.equal(count(ann.log, 'publication'), 3);
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
        const told =
          name === 'json'
            ? (frame) => frame.includes('"refresh":{"expires":true,"ttl":3')
            : (frame) => frame.includes(Buffer.from([0x62, 0x05, 0x08, 0x01, 0x10]));
        await frames.first(told, 'the push');
        assert.equal(ann.state, 'connected');
        await gateway.api('refresh', { user: id, expired: true });
        await ann.log.first(({ event, code }) => event === 'connecting' && code === 3005);
        await until('it is back', () => count(ann.log, 'connected') === 2);
      });
    });
  });
}
