// Clients of npm `centrifuge` that come and go: nothing is lost, and nothing comes twice.

import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';

import { Inbox, serve, until, within } from './fanwire.mjs';
import { CONFIG, ENCODINGS, count, is, receivedUpTo, sdk, user } from './sdk.mjs';
import { TcpProxy } from './tcp_proxy.mjs';

const gateway = await serve(CONFIG);
after(() => gateway.stop());

for (const name of Object.keys(ENCODINGS)) {
  describe(name, { concurrency: true }, () => {
    const { encoding, client, connected, subscription, subscribed, channelIn } = sdk(gateway, name);

    test('a subscription from the beginning of a stream, or from a point in it', async (t) => {
      const channel = channelIn('open');
      const nobody = await connected(t);
      // A channel nobody has published to has a position already.
      const { offset, epoch } = await nobody.history(channel, { limit: 0 });
      for (const number of [1, 2, 3]) await gateway.publish(channel, number);
      for (const [since, expected] of [
        [{ offset: 0, epoch: '' }, [1, 2, 3]],
        [{ offset, epoch }, [1, 2, 3]],
        [{ offset: 2, epoch }, [3]],
      ]) {
        const one = await connected(t);
        const room = await subscribed(one, channel, { since });
        const context = await room.log.first(is('subscribed'));
        assert.deepEqual([context.wasRecovering, context.recovered], [true, true]);
        assert.deepEqual(await receivedUpTo(3, room.log), expected);
      }
      const room = await subscribed(await connected(t), channel, { since: { offset: 1, epoch: 'another' } });
      const context = await room.log.first(is('subscribed'));
      assert.deepEqual([context.wasRecovering, context.recovered], [true, false]);
    });

    test('a subscription begun anew gets what came in between', async (t) => {
      const channel = channelIn('open');
      const made = await connected(t);
      const room = await subscribed(made, channel);
      const numbers = Array.from({ length: 30 }, (_, index) => index + 1);
      for (const number of numbers) {
        // The unsubscribe is processed before the publication, which comes later.
        room.unsubscribe();
        await made.publish(channel, encoding.encode(number));
        room.subscribe();
        await room.ready(10_000);
      }
      assert.deepEqual(await receivedUpTo(30, room.log), numbers);
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
        assert.deepEqual(
          { recovered, wasRecovering, recoverable },
          { recovered: false, wasRecovering: false, recoverable: true },
        );
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
        await until(
          'it is out of the channel',
          async () => (await gateway.api('presence_stats', { channel })).num_clients === 0,
        );
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
      for (let number = 1; number <= total; number += 1)
        await publisher.publish(channels[number % 2], encoding.encode(number));
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
        assert.ok(
          numbers.every((number, index) => index === 0 || number > numbers[index - 1]),
          `in order: ${numbers}`,
        );
      }
      assert.deepEqual(publisher.log.items.filter(is('error', 'disconnected')), []);
      assert.equal(count(publisher.log, 'connecting'), 1);
    });
  });
}
