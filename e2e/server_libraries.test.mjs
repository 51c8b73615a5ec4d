// The npm library of backends, `cent.js`, unmodified, against the HTTP control plane, which here shares the public port.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { CentClient } from 'cent.js';

import { SECRET, record, serve, token, until } from './fanwire.mjs';
import { ENCODINGS, newClient } from './sdk.mjs';

const KEY = 'a-key-that-only-these-tests-know';

let gateway, cent;

before(async () => {
  gateway = await serve(
    `
    [token]
    hmac_secret = "${SECRET}"

    [[api_key]]
    name = "backend"
    secret = "${KEY}"

    [[namespace]]
    presence = true
    history_size = 10
    history_ttl = "5m"
    recovery = true
    subscribe = "anyone"
  `,
    { oneAddress: true },
  );
  assert.equal(gateway.control, gateway.public);
  cent = new CentClient({ url: `${gateway.public}/api`, apiKey: KEY });
});
after(() => gateway?.stop());

test('publishes, and reads what there is', async (t) => {
  const { epoch } = await cent.publish({ channel: 'news', data: { number: 1 }, tags: { kind: 'note' } });
  const { responses } = await cent.broadcast({ channels: ['news', 'nowhere:1'], data: { number: 2 } });
  assert.deepEqual([responses[0].result.offset, responses[1].error.code], [2, 102]);
  const history = await cent.getHistory({ channel: 'news', limit: 10 });
  assert.deepEqual([history.offset, history.epoch], [2, epoch]);
  assert.deepEqual(
    history.publications.map(({ data, offset, tags }) => [data.number, offset, tags]),
    [
      [1, 1, { kind: 'note' }],
      [2, 2, undefined],
    ],
  );
  await cent.removeHistory({ channel: 'news' });
  assert.deepEqual((await cent.getHistory({ channel: 'news', limit: 10 })).publications, []);

  const { room } = await member(t, 'ann', 'room');
  assert.deepEqual(
    Object.values((await cent.getPresence({ channel: 'room' })).presence).map(({ user }) => user),
    ['ann'],
  );
  assert.deepEqual(await cent.getPresenceStats({ channel: 'room' }), { num_clients: 1, num_users: 1 });
  assert.deepEqual((await cent.getChannels({ pattern: 'ro*' })).channels, { room: { num_clients: 1 } });
  assert.equal((await cent.getInfo()).nodes.length, 1);
  const results = await cent.pipeline([
    { method: 'publish', params: { channel: 'room', data: 1 } },
    { method: 'publish', params: { channel: 'room', data: 2 } },
  ]);
  assert.deepEqual(
    results.map(({ offset }) => offset),
    [1, 2],
  );
  assert.deepEqual(
    (await room.many(2)).map(({ data }) => data),
    [1, 2],
  );
});

test('reaches clients', async (t) => {
  const { log, room } = await member(t, 'bob', 'home');
  await cent.subscribe({ user: 'bob', channel: 'gift' });
  await log.first(({ event, channel }) => event === 'subscribed' && channel === 'gift');
  await cent.unsubscribe({ user: 'bob', channel: 'gift' });
  await log.first(({ event, channel }) => event === 'unsubscribed' && channel === 'gift');
  await cent.unsubscribe({ user: 'bob', channel: 'home' });
  await room.first(({ code }) => code === 2000);
  await cent.refresh({ user: 'bob', expired: true });
  await log.first(({ event, code }) => event === 'connecting' && code === 3005);
  await until('it is back', () => log.items.filter(({ event }) => event === 'connected').length === 2);
  await cent.disconnect({ user: 'bob' });
  const { code } = await log.first(({ event }) => event === 'disconnected');
  assert.equal(code, 3503);
});

test('is told what went wrong', async () => {
  await assert.rejects(cent.publish({ channel: 'nowhere:1', data: 1 }), { name: 'Error' });
  const stranger = new CentClient({ url: `${gateway.public}/api`, apiKey: 'another-key-that-nobody-has' });
  await assert.rejects(stranger.publish({ channel: 'news', data: 1 }), { name: 'Error' });
});

/** A client of this user in a channel, with its events and those of the subscription. */
async function member(t, user, channel) {
  const client = newClient(ENCODINGS.json, gateway.url(), { token: token({ sub: user }) });
  t.after(() => client.disconnect());
  const log = record(client, 'connecting', 'connected', 'disconnected', 'subscribed', 'unsubscribed');
  const subscription = client.newSubscription(channel);
  const room = record(subscription, 'publication', 'unsubscribed');
  client.connect();
  subscription.subscribe();
  await subscription.ready(10_000);
  return { log, room };
}
