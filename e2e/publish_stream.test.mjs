// Eight backends publish to one channel over PublishStream, at three nodes on one Redis server, and a node is killed.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, test } from 'node:test';

import { serve, until } from './fanwire.mjs';
import { openStream, request } from './publish_stream.mjs';
import { startRedis } from './redis.mjs';
import { ENCODINGS, newClient } from './sdk.mjs';

const PUBLISHERS = 8;
const EACH = 1500;
const CHANNEL = 'kept:one';

let redis;
let gateways = [];

before(async () => {
  redis = await startRedis();
  const config = `
    [broker]
    kind = "redis"
    redis = { urls = ["redis://127.0.0.1:${redis.port}"] }
    [client]
    insecure = true
    [[namespace]]
    name = "kept"
    history_size = ${PUBLISHERS * EACH}
    history_ttl = "5m"
    recovery = true
  `;
  gateways = await Promise.all([0, 1, 2].map(() => serve(config)));
  for (const gateway of gateways) {
    await until('Redis carries', async () => (await (await fetch(`${gateway.ops}/health/ready`)).json()).status === 'ready');
  }
});

after(async () => {
  await Promise.all(gateways.slice(1).map((gateway) => gateway.stop()));
  gateways[0]?.child.kill('SIGKILL');
  redis?.stop();
});

test('one order and no gap for all, while a node is killed', async (t) => {
  const subscribers = await Promise.all([1, 2, 2].map((node) => subscriber(t, gateways[node])));
  const backends = Array.from({ length: PUBLISHERS }, (_, number) => new Backend(number));
  backends.forEach((backend) => backend.open());
  await until('everybody publishes', () => backends.every((backend) => backend.places.size > EACH / 10));
  const victims = backends.filter((backend) => backend.gateway === gateways[0]);
  assert.ok(victims.length > 0 && victims.every((backend) => backend.places.size < EACH), 'it dies in the middle');
  gateways[0].child.kill('SIGKILL');
  await once(gateways[0].child, 'exit');
  await until('all is acknowledged', () => backends.every((backend) => backend.places.size === EACH), 60_000);
  assert.ok(victims.every((backend) => backend.calls > 1));

  const total = PUBLISHERS * EACH;
  const order = [];
  for (const { number, places } of backends) {
    for (const [id, { offset }] of places) order[offset - 1] = `${number}:${id}`;
  }
  const epochs = new Set(backends.flatMap(({ places }) => [...places.values()].map(({ epoch }) => epoch)));
  assert.equal(epochs.size, 1);
  assert.equal(order.filter(Boolean).length, total, 'each has a place of its own');
  assert.equal(order.length, total, 'and there are no others');
  for (const { items } of subscribers) {
    await until('it has seen all', () => items.length >= total, 60_000);
    assert.deepEqual(items.map(({ data }) => data), order, 'as acknowledged');
    assert.deepEqual(items.map(({ offset }) => offset), order.map((_, index) => index + 1), 'without a gap');
  }

  // Everything once more, elsewhere: the same keys have the same places, and nobody hears of it.
  for (const backend of backends) {
    const first = new Map(backend.places);
    backend.places.clear();
    backend.open();
    await until('all is acknowledged again', () => backend.places.size === EACH, 60_000);
    assert.deepEqual(backend.places, first);
  }
  const marker = await gateways[1].publish(CHANNEL, 'the last');
  for (const { items } of subscribers) {
    await until('the last one is there', () => items.at(-1).data === 'the last');
    assert.equal(items.length, total + 1);
  }
  assert.equal(marker.offset, total + 1);
});

/** Publishes its own sequence, and what was not acknowledged again when a call breaks, at another node. */
class Backend {
  places = new Map();
  calls = 0;

  constructor(number) {
    this.number = number;
  }

  open() {
    const alive = gateways.filter(({ child }) => child.exitCode === null && child.signalCode === null);
    this.gateway = alive[(this.number + this.calls++) % alive.length];
    const missing = Array.from({ length: EACH }, (_, id) => id).filter((id) => !this.places.has(id));
    let last = -1;
    const onAcknowledged = ({ id, code, offset, epoch }) => {
      // What may have been applied is asked again with the next call.
      if (code !== 0) return;
      assert.ok(id > last, 'acknowledged in the order it was sent');
      last = id;
      this.places.set(id, { offset, epoch });
    };
    const call = openStream(this.gateway.control, {
      onAcknowledged,
      onEnd: () => this.places.size < EACH && setTimeout(() => this.open(), 20),
    });
    (async () => {
      for (const id of missing) {
        if (call.destroyed) return;
        const data = `${this.number}:${id}`;
        // Some at a time, so that a call lives for a while.
        if (!call.write(request(id, { channel: CHANNEL, data, key: data })) || id % 64 === 0) {
          await Promise.race([once(call, 'drain').catch(() => {}), new Promise((resolve) => setTimeout(resolve, 5))]);
        }
      }
      call.end();
    })();
  }
}

async function subscriber(t, gateway) {
  const client = newClient(ENCODINGS.json, gateway.url());
  const subscription = client.newSubscription(CHANNEL, { recoverable: true, positioned: true });
  const items = [];
  let live = false;
  subscription.on('publication', ({ data, offset }) => items.push({ data, offset }));
  subscription.on('subscribed', () => (live = true));
  subscription.subscribe();
  client.connect();
  t.after(() => client.disconnect());
  await until('it is subscribed', () => live);
  return { items };
}
