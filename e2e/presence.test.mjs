// Who is in a channel of a cluster, when its nodes die.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { Inbox, SECRET, serve, token, until } from './fanwire.mjs';
import { startRedis } from './redis.mjs';
import { ENCODINGS, newClient } from './sdk.mjs';

const NAMESPACES = `
[token]
hmac_secret = "${SECRET}"
[[namespace]]
name = "chat"
subscribe = "anyone"
presence = true
presence_read = "subscriber"
join_leave = true
[[namespace]]
name = "users"
subscribe = "anyone"
presence = true
presence_read = "subscriber"
force_join_leave = true
join_leave_per = "user"
`;

describe('presence on two gateways and one Redis server', () => {
  let redis;
  let config;
  let lives;
  let dies;

  before(async () => {
    redis = await startRedis();
    config = `[broker]\nkind = "redis"\nredis = { urls = ["redis://127.0.0.1:${redis.port}"] }\n${NAMESPACES}`;
    [lives, dies] = await Promise.all([serve(config), serve(config)]);
  });

  after(async () => {
    await lives.stop();
    redis.stop();
  });

  test('joins and leaves come by turns, however a client ends', async () => {
    const observer = await member(lives, 'chat:turns', 'observer');
    const [stays, goes, hangsUp] = await Promise.all(['ann', 'bob', 'carl'].map((user) => member(dies, 'chat:turns', user)));
    await observer.heard.many(4);
    goes.subscription.unsubscribe();
    hangsUp.client.disconnect();
    await observer.heard.many(6);
    goes.subscription.subscribe();
    await observer.heard.many(7);
    const of = (user) => observer.heard.items.filter(([, of]) => of === user).map(([event]) => event);
    assert.deepEqual(['ann', 'bob', 'carl'].map(of), [['join'], ['join', 'leave', 'join'], ['join', 'leave']]);
    for (const { client } of [observer, stays, goes]) client.disconnect();
    await until('nobody is there', async () => (await stats(lives, 'chat:turns')).num_clients === 0);
  });

  test('a user with several connections joins once and leaves once', async () => {
    const observer = await member(lives, 'users:a', 'observer');
    const [first, second] = [await member(lives, 'users:a', 'ann'), await member(dies, 'users:a', 'ann')];
    assert.deepEqual(await stats(lives, 'users:a'), { num_clients: 3, num_users: 2 });
    const { users } = await lives.api('presence_stats', { channel: 'users:a', users: ['ann', 'bob'] });
    assert.deepEqual(users, { ann: 2, bob: 0 });
    first.client.disconnect();
    await until('one has left', async () => (await stats(lives, 'users:a')).num_clients === 2);
    second.client.disconnect();
    await observer.heard.many(3);
    assert.deepEqual(observer.heard.items, [['join', 'observer'], ['join', 'ann'], ['leave', 'ann']]);
    observer.client.disconnect();
  });

  test('a node is killed: the others hear that its clients left, and do not see them any more', async () => {
    const observer = await member(lives, 'chat:killed', 'observer');
    const users = await member(lives, 'users:killed', 'observer');
    const stays = await member(lives, 'users:killed', 'ann');
    const names = Array.from({ length: 20 }, (_, n) => `u${n}`);
    const doomed = await Promise.all([
      ...names.map((user) => member(dies, 'chat:killed', user)),
      ...['ann', 'bob'].map((user) => member(dies, 'users:killed', user)),
    ]);
    await observer.heard.many(21);
    await users.heard.many(3);
    assert.deepEqual(await stats(lives, 'chat:killed'), { num_clients: 21, num_users: 21 });
    // They stay away.
    doomed.forEach(({ client }) => client.on('connecting', () => client.disconnect()));
    await dies.kill();
    const died = performance.now();
    const events = await observer.heard.many(41, 'twenty leaves');
    console.log(`a node was killed: the leaves of its clients were heard after ${((performance.now() - died) / 1000).toFixed(1)} s`);
    assert.deepEqual(events.slice(21).sort(), names.map((user) => ['leave', user]).sort());
    const { presence } = await lives.api('presence', { channel: 'chat:killed' });
    assert.deepEqual(Object.values(presence).map(({ user }) => user), ['observer']);
    assert.deepEqual(await stats(lives, 'chat:killed'), { num_clients: 1, num_users: 1 });
    const seen = await observer.subscription.presence();
    assert.equal(Object.keys(seen.clients).length, 1);
    // Ann is still there, by another connection.
    assert.deepEqual((await users.heard.many(4)).at(-1), ['leave', 'bob']);
    assert.equal((await lives.metrics()).sum('fanwire_presence_swept_total'), 22);
    [observer, users, stays].forEach(({ client }) => client.disconnect());
    await until('nothing is left', async () => !/fanwire:(members|users|joined|index)/.test(await redis.ask('KEYS', '*')));
  });
});

/** A client of this user that is in a channel, and the joins and leaves it hears there. */
async function member(gateway, channel, user) {
  const heard = new Inbox();
  const client = newClient(ENCODINGS.json, gateway.url(), { token: token({ sub: user }) });
  const subscription = client.newSubscription(channel, { joinLeave: true });
  for (const event of ['join', 'leave']) subscription.on(event, ({ info }) => heard.push([event, info.user]));
  subscription.subscribe();
  client.connect();
  await subscription.ready(10_000);
  return { client, subscription, heard };
}

function stats(gateway, channel) {
  return gateway.api('presence_stats', { channel });
}
