// Measures what a backend that hangs costs clients that have nothing to do with it (docs/benchmarks.md):
//
//   node e2e/hook_latency.mjs [rounds]          (3 if not given: one and a half minutes)
//
// One publisher and 100 subscribers of a channel without a hook, 100 publications a second; each delivery is timed. In
// turn: nobody else is there; 200 clients in another process call a backend all the time, and it answers; the same, and
// it takes every question and never answers.

import { fork } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { fileURLToPath } from 'node:url';

import WebSocket from 'ws';

import { serve, until } from './fanwire.mjs';

const SUBSCRIBERS = 100;
const CALLERS = 200;
const PAUSE = 250;
const PERIOD = 10;
const SECONDS = 5;

if (process.argv[2] === 'callers') await callers(process.argv[3]);
else await main(Number(process.argv[2] ?? 3));

async function main(rounds) {
  let answers = true;
  let questions = 0;
  const backend = createServer((request, response) => {
    questions++;
    request.resume();
    if (answers) response.end('{"result":{"data":1}}');
  });
  backend.listen(0, '127.0.0.1');
  await once(backend, 'listening');
  const gateway = await serve(`
    [client]
    anonymous = true
    rpc_hook = "backend"
    [[namespace]]
    name = "free"
    subscribe = "anyone"
    publish = "anyone"
    [[hook]]
    name = "backend"
    url = "http://127.0.0.1:${backend.address().port}/"
  `);
  const publisher = await measuring(gateway);
  const phases = ['nobody calls', 'the backend answers', 'the backend hangs'];
  const results = phases.map(() => []);
  for (let round = 0; round < rounds; round++) {
    for (const [index, phase] of phases.entries()) {
      answers = phase !== 'the backend hangs';
      const child = index > 0 ? fork(fileURLToPath(import.meta.url), ['callers', gateway.url()]) : undefined;
      if (child) {
        await once(child, 'message');
        // Open or closed, as the phase wants it.
        await until(phase, async () => (await gateway.metrics()).sum('fanwire_hook_open') === (answers ? 0 : 1), 60_000);
      }
      const before = await gateway.metrics();
      const sample = await publisher.measure(SECONDS * 1000);
      const after = await gateway.metrics();
      const outcome = (name) => {
        const count = (metrics) => metrics.sum('fanwire_hook_requests_total', { outcome: name });
        return Math.round((count(after) - count(before)) / SECONDS);
      };
      results[index].push(sample);
      const calls = ['ok', 'timeout', 'open'].map((name) => `${outcome(name)} ${name}`).join(', ');
      console.log(`${phase}: p50 ${sample.p50.toFixed(2)} ms, p99 ${sample.p99.toFixed(2)} ms, calls a second: ${calls}`);
      child?.kill();
    }
  }
  const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1].toFixed(2);
  console.log(`\n| | p50 | p99 |\n|---|--:|--:|`);
  for (const [index, phase] of phases.entries()) {
    const of = (key) => median(results[index].map((sample) => sample[key]));
    console.log(`| ${phase} | ${of('p50')} ms | ${of('p99')} ms |`);
  }
  console.log(`${questions} questions reached the backend`);
  process.exit(0);
}

/** Opens a connection, with a subscription if a channel is named. */
async function open(url, channel) {
  const socket = new WebSocket(url);
  await once(socket, 'open');
  socket.send('{"id":1,"connect":{}}');
  await once(socket, 'message');
  if (channel) {
    socket.send(`{"id":2,"subscribe":{"channel":"${channel}"}}`);
    await once(socket, 'message');
  }
  return socket;
}

async function measuring(gateway) {
  let samples = [];
  for (let index = 0; index < SUBSCRIBERS; index++) {
    const socket = await open(gateway.url(), 'free:1');
    socket.on('message', (data) => {
      const now = performance.now();
      for (const line of data.toString().split('\n')) {
        const at = JSON.parse(line).push?.pub?.data;
        if (at === undefined) socket.send('{}');
        else samples.push(now - at);
      }
    });
  }
  const publisher = await open(gateway.url());
  publisher.on('message', (data) => data.toString() === '{}' && publisher.send('{}'));
  let id = 10;
  return {
    async measure(time) {
      samples = [];
      const end = performance.now() + time;
      for (let next = performance.now(); next < end; next += PERIOD) {
        await new Promise((resolve) => setTimeout(resolve, Math.max(0, next - performance.now())));
        publisher.send(`{"id":${++id},"publish":{"channel":"free:1","data":${performance.now()}}}`);
      }
      await until('all is delivered', () => samples.length >= (time / PERIOD - 1) * SUBSCRIBERS);
      samples.sort((a, b) => a - b);
      return { p50: samples[samples.length >> 1], p99: samples[Math.floor(samples.length * 0.99)] };
    },
  };
}

/** The affected: each calls, waits for what comes, pauses, and calls again. */
async function callers(url) {
  for (let index = 0; index < CALLERS; index++) {
    const socket = await open(url);
    let id = 10;
    const call = () => socket.send(`{"id":${++id},"rpc":{"method":"x","data":{}}}`);
    socket.on('message', (data) => {
      if (data.toString() === '{}') socket.send('{}');
      else setTimeout(call, PAUSE);
    });
    setTimeout(call, Math.random() * PAUSE);
  }
  process.send('ready');
}
