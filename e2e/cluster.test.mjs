// Three gateways on one Redis server are one.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import WebSocket from 'ws';

import { Inbox, declaredMetrics, serve, until } from './fanwire.mjs';
import { startRedis } from './redis.mjs';
import { ENCODINGS, newClient } from './sdk.mjs';
import { TcpProxy } from './tcp_proxy.mjs';

const NAMESPACES = `
[client]
insecure = true
[[namespace]]
name = ""
[[namespace]]
name = "chat"
history_size = 100
history_ttl = "1m"
recovery = true
presence = true
`;

describe('three gateways on one Redis server', () => {
  let redis;
  let gateways = [];

  before(async () => {
    redis = await startRedis();
    const config = `[broker]\nkind = "redis"\nredis = { urls = ["redis://127.0.0.1:${redis.port}"] }\n${NAMESPACES}`;
    gateways = await Promise.all([serve(config), serve(config), serve(config)]);
    for (const gateway of gateways) await until('Redis carries', async () => (await health(gateway)).status === 'ready');
  });

  after(async () => {
    await Promise.all(gateways.map((gateway) => gateway.stop()));
    redis.stop();
  });

  for (const channel of ['news', 'chat:all']) {
    test(`what is published on any of them arrives at all, once and in order: ${channel}`, async () => {
      const clients = await Promise.all(gateways.map((gateway) => subscriber(gateway, channel)));
      for (const [n, gateway] of gateways.entries()) await gateway.publish(channel, n);
      for (const { inbox } of clients) {
        await inbox.first((item) => item === 2, 'the last publication');
        assert.deepEqual(inbox.items, [0, 1, 2]);
      }
      clients.forEach(({ client }) => client.disconnect());
    });
  }

  test('a client that moves to another node continues where it stopped', async () => {
    const channel = 'chat:moving';
    const balancer = await TcpProxy.to(gateways[0].port);
    const inbox = new Inbox();
    const states = [];
    const client = newClient(ENCODINGS.json, balancer.url());
    const subscription = client.newSubscription(channel);
    subscription.on('publication', ({ data }) => inbox.push(data));
    subscription.on('subscribed', ({ wasRecovering, recovered }) => states.push([wasRecovering, recovered]));
    subscription.subscribe();
    client.connect();
    await until('the client is subscribed', () => states.length === 1);
    await gateways[1].publish(channel, 'seen');
    await inbox.first((item) => item === 'seen');

    balancer.cut();
    for (const n of [1, 2, 3]) await gateways[n % 3].publish(channel, n);
    balancer.lead(gateways[2].port);
    balancer.mend();
    await inbox.first((item) => item === 3, 'what was missed');
    assert.deepEqual(inbox.items, ['seen', 1, 2, 3]);
    assert.deepEqual(states[1], [true, true]);
    client.disconnect();
    balancer.close();
  });

  test('presence knows the clients of all nodes', async () => {
    const clients = await Promise.all(gateways.map((gateway) => subscriber(gateway, 'chat:who')));
    for (const gateway of gateways) {
      const { num_clients } = await gateway.api('presence_stats', { channel: 'chat:who' });
      assert.equal(num_clients, 3);
    }
    clients.forEach(({ client }) => client.disconnect());
    await until('nobody is there', async () => (await gateways[0].api('presence_stats', { channel: 'chat:who' })).num_clients === 0);
  });

  test('subscriber connections that are cut are not noticed by clients', async () => {
    const { client, inbox, ended } = await subscriber(gateways[0], 'chat:cut');
    for (let n = 0; n < 200; n++) {
      if (n % 50 === 25) await redis.ask('CLIENT', 'KILL', 'TYPE', 'pubsub');
      await gateways[1].publish('chat:cut', n);
    }
    await inbox.first((item) => item === 199, 'the last publication');
    assert.deepEqual(inbox.items, Array.from({ length: 200 }, (_, n) => n));
    assert.deepEqual(ended, []);
    client.disconnect();
  });

  test('a node that Redis does not reach says so, stays ready, and recovers', async () => {
    const [gateway] = gateways;
    redis.signal('SIGSTOP');
    try {
      await assert.rejects(gateway.publish('chat:stopped', 1), { code: 504 });
      await until('the node is degraded', async () => (await health(gateway)).status === 'degraded');
    } finally {
      redis.signal('SIGCONT');
    }
    await until('the node is ready', async () => (await health(gateway)).status === 'ready');
    await gateway.publish('chat:stopped', 2);
  });

  test('what only Redis has to tell is measured', async () => {
    const metrics = await gateways[0].metrics();
    const { redis: declared } = declaredMetrics();
    assert.ok(declared.length >= 4, declared.join());
    for (const name of declared) assert.ok(metrics.samples.some((sample) => sample.name === name), `${name} has no sample`);
    assert.ok(metrics.sum('fanwire_redis_reconnects_total') > 0);
  });
});

describe('a gateway that is cut off from Redis', () => {
  test('hands its clients over to one that is not, and takes new ones when it is back', async (t) => {
    const redis = await startRedis();
    t.after(() => redis.stop());
    const leg = await TcpProxy.to(redis.port);
    t.after(() => leg.close());
    const config = (port) => `
      [broker]
      kind = "redis"
      [broker.redis]
      urls = ["redis://127.0.0.1:${port}"]
      unready_when_down = true
      give_up_after = "5s"
      ${NAMESPACES}`;
    const [cut, whole] = await Promise.all([serve(config(leg.server.address().port)), serve(config(redis.port))]);
    t.after(() => Promise.all([cut.stop(), whole.stop()]));
    const ready = async (gateway) => {
      const answer = await fetch(`${gateway.ops}/health/ready`);
      return [answer.status, (await answer.json()).status];
    };
    const is = (gateway, ...wanted) => until(`${wanted}`, async () => `${await ready(gateway)}` === `${wanted}`);
    for (const gateway of [cut, whole]) await is(gateway, 200, 'ready');

    const balancer = await TcpProxy.to(cut.port);
    t.after(() => balancer.close());
    const client = newClient(ENCODINGS.json, balancer.url());
    t.after(() => client.disconnect());
    const connecting = [];
    client.on('connecting', ({ code }) => connecting.push(code));
    const subscription = client.newSubscription('chat:over');
    const [inbox, states] = [new Inbox(), []];
    subscription.on('publication', ({ data }) => inbox.push(data));
    subscription.on('subscribed', ({ wasRecovering, recovered }) => states.push([wasRecovering, recovered]));
    subscription.subscribe();
    client.connect();
    await until('the client is subscribed', () => states.length === 1);
    await whole.publish('chat:over', 1);
    await inbox.first((item) => item === 1, 'the first publication');

    leg.cut();
    await is(cut, 503, 'degraded');
    // What a balancer does with a node that is not ready.
    balancer.lead(whole.port);
    await assert.rejects(cut.publish('chat:over', 0), ({ code }) => [503, 504].includes(code));
    await whole.publish('chat:over', 2);
    await is(cut, 503, 'handing over');
    await inbox.first((item) => item === 2, 'what the deaf node did not get');
    assert.deepEqual(inbox.items, [1, 2]);
    assert.deepEqual(connecting, [0, 3011], 'asked to come back');
    assert.deepEqual(states, [[false, false], [true, true]]);
    const refused = await new Promise((resolve) => {
      const socket = new WebSocket(cut.url());
      socket.on('error', () => {});
      socket.on('unexpected-response', (_, { statusCode }) => resolve(statusCode));
      socket.on('open', () => resolve('open'));
    });
    assert.equal(refused, 503);
    assert.equal((await cut.metrics()).sum('fanwire_handing_over'), 1);

    leg.mend();
    await is(cut, 200, 'ready');
    const late = await subscriber(cut, 'chat:over');
    await whole.publish('chat:over', 3);
    await late.inbox.first((item) => item === 3, 'the next publication');
    late.client.disconnect();
  });
});

async function health(gateway) {
  const answer = await fetch(`${gateway.ops}/health/ready`);
  assert.equal(answer.status, 200);
  return answer.json();
}

async function subscriber(gateway, channel) {
  const inbox = new Inbox();
  const ended = [];
  const client = newClient(ENCODINGS.json, gateway.url());
  const subscription = client.newSubscription(channel);
  subscription.on('publication', ({ data }) => inbox.push(data));
  subscription.on('subscribing', ({ code }) => subscribed && ended.push(code));
  let subscribed = false;
  subscription.on('subscribed', () => (subscribed = true));
  subscription.subscribe();
  client.connect();
  await until('the client is subscribed', () => subscribed);
  return { client, inbox, ended };
}
