// Measures how many publications a node takes over one call of PublishStream (docs/benchmarks.md):
//
//   node e2e/publish_rate.mjs http://127.0.0.1:8010 [seconds] [channels] [bytes] [redis-port]
//
// With the port of a Redis on this machine also what a publication costs it, in microseconds of its CPU time: how many a core of
// Redis could take, whatever else is going on here.
// Requests are encoded once, so that the load costs less than what is measured; sent as fast as the node reads. Counts
// acknowledgements with a position, or without an error where a channel keeps none.

import { once } from 'node:events';
import { connect } from 'node:net';

import { openStream, request } from './publish_stream.mjs';

const [url, seconds = '5', channels = '1', bytes = '64', redis] = process.argv.slice(2);
const PER_WRITE = 512;

const data = 'x'.repeat(Number(bytes) - 2);
const requests = Buffer.concat(
  Array.from({ length: PER_WRITE }, (_, id) => request(id, { channel: `rate${id % Number(channels)}`, data })),
);
let [acknowledged, refused, sending] = [0, 0, true];
const ended = new Promise((resolve) => {
  const onAcknowledged = ({ code }) => (code === 0 ? acknowledged++ : refused++);
  const call = openStream(url, { onAcknowledged, onEnd: resolve });
  (async () => {
    while (sending) {
      if (!call.write(requests)) await once(call, 'drain');
    }
    call.end();
  })();
});
await pause(1);
const [begun, before, cpu] = [performance.now(), acknowledged, await redisCpu()];
await pause(Number(seconds));
const count = acknowledged - before;
const rate = (count / (performance.now() - begun)) * 1000;
const redis_us = redis && Math.round((((await redisCpu()) - cpu) / count) * 1e8) / 100;
sending = false;
const status = await ended;
console.log(JSON.stringify({ channels: Number(channels), bytes: Number(bytes), per_second: Math.round(rate), redis_us, refused, status }));
process.exitCode = refused > 0 || status !== 0 ? 1 : 0;

function pause(duration) {
  return new Promise((resolve) => setTimeout(resolve, duration * 1000));
}

// The CPU seconds Redis has used, by its own account.
async function redisCpu() {
  if (!redis) return 0;
  const socket = connect(Number(redis), '127.0.0.1');
  socket.end('INFO cpu\r\nQUIT\r\n');
  let text = '';
  for await (const part of socket) text += part;
  return ['user', 'sys'].reduce((sum, kind) => sum + Number(text.match(new RegExp(`used_cpu_${kind}:([0-9.]+)`))[1]), 0);
}
