// Runs a gateway for a test, and holds what all tests of it need: waiting with a limit, tokens, metrics.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The key of the tokens that `token` makes. */
export const SECRET = 'a secret that only these tests know';

export const BINARY = process.env.FANWIRE_BIN ?? fileURLToPath(new URL('../target/release/fanwire', import.meta.url));

/** No step of a test takes longer than this, in milliseconds. */
const LIMIT = 15_000;

/**
 * Starts a gateway with this configuration (TOML without `[listen]` and `[log]`), on ports that the system chooses.
 * Unless it says otherwise, no balancer needs time when the gateway ends.
 * With `oneAddress` the control plane is on the public one; `log` is what stands in `[log]`.
 */
export async function serve(config = '', { oneAddress = false, log = 'level = "warn"' } = {}) {
  const any = '127.0.0.1:0';
  const shared = oneAddress ? await freeAddress() : any;
  const listen = `[listen]\npublic = "${shared}"\ncontrol = "${shared}"\nops = "${any}"\n[log]\n${log}\n`;
  const drain = config.includes('[drain]') ? '' : '[drain]\ngrace = "0s"\n';
  const gateway = new Gateway(listen + drain + config);
  try {
    await gateway.ready();
  } catch (error) {
    gateway.child.kill('SIGKILL');
    throw error;
  }
  return gateway;
}

class Gateway {
  constructor(config) {
    const folder = mkdtempSync(join(tmpdir(), 'fanwire-e2e-'));
    this.file = join(folder, 'fanwire.toml');
    this.configure(config);
    this.child = spawn(BINARY, ['serve', '--config', this.file], { stdio: ['ignore', 'pipe', 'pipe'], env: environment() });
    this.announced = '';
    this.child.stdout.on('data', (data) => (this.announced += data));
    this.errors = '';
    this.child.stderr.on('data', (data) => (this.errors += data));
    const killed = () => this.child.kill('SIGKILL');
    process.on('exit', killed);
    this.exited = new Promise((resolve) => {
      this.child.on('error', (error) => resolve({ code: null, signal: error.message }));
      this.child.on('close', (code, signal) => resolve({ code, signal }));
    }).finally(() => {
      process.off('exit', killed);
      rmSync(folder, { recursive: true });
    });
  }

  async ready() {
    let ended = null;
    this.exited.then((exit) => (ended = exit));
    const address = (listener) => new RegExp(`^ *${listener} +(https?://\\S+)`, 'm').exec(this.announced)?.[1];
    await until('the gateway is ready', async () => {
      assert.equal(ended, null, `${BINARY} did not start:\n${this.errors}`);
      [this.public, this.control, this.ops] = ['public', 'control', 'ops'].map(address);
      const answer = this.ops && (await fetch(`${this.ops}/health/ready`).catch(() => null));
      return answer?.status === 200;
    });
    this.port = Number(new URL(this.public).port);
  }

  /** Writes the configuration file, which the gateway may be told to read again. */
  configure(config) {
    this.config = config;
    writeFileSync(this.file, config);
  }

  /** The address of a client protocol's endpoint. */
  url(path = '/connection/websocket') {
    return `ws://127.0.0.1:${this.port}${path}`;
  }

  /** Calls a method of the control plane, with `key` if that is set; returns its result, or throws its error. */
  async api(method, params = {}) {
    const headers = this.key ? { 'X-API-Key': this.key } : {};
    const body = JSON.stringify(params);
    const answer = await fetch(`${this.control}/api/${method}`, { method: 'POST', headers, body });
    assert.equal(answer.status, 200, `${method}: status ${answer.status}`);
    const { result, error } = await answer.json();
    if (error) throw Object.assign(new Error(`${method}: ${error.message}`), { code: error.code });
    return result;
  }

  publish(channel, data) {
    return this.api('publish', { channel, data });
  }

  async metrics() {
    const answer = await fetch(`${this.ops}/metrics`);
    assert.equal(answer.status, 200);
    return new Metrics(await answer.text());
  }

  /** Kills the gateway, without a word to anybody. */
  async kill() {
    this.child.kill('SIGKILL');
    await within(this.exited, 'the end of the gateway');
  }

  /** Tells the gateway to end, and checks that it does so properly. */
  async stop(signal = 'SIGTERM') {
    this.child.kill(signal);
    const exit = await within(this.exited, 'the end of the gateway').catch((error) => {
      this.child.kill('SIGKILL');
      throw error;
    });
    assert.deepEqual(exit, { code: 0, signal: null }, this.errors);
    assert.doesNotMatch(this.errors, /panicked|ERROR/);
  }
}

/** One scrape of `/metrics`. */
export class Metrics {
  constructor(text) {
    this.help = new Set();
    this.types = new Map();
    this.samples = [];
    for (const line of text.split('\n').filter(Boolean)) {
      const comment = /^# (HELP|TYPE) (\S+) (.*)$/.exec(line);
      if (comment?.[1] === 'HELP') this.help.add(comment[2]);
      else if (comment) this.types.set(comment[2], comment[3]);
      else {
        const [, name, labels = '', value] =
          /^([^\s{]+)(?:\{(.*)\})? (\S+)$/.exec(line) ?? assert.fail(`not a sample: ${line}`);
        const pairs = labels.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g);
        this.samples.push({
          name,
          labels: Object.fromEntries([...pairs].map(([, key, text]) => [key, text])),
          value: Number(value),
        });
      }
    }
  }

  /** The sum of a metric's samples that have these labels. */
  sum(name, labels = {}) {
    const wanted = (sample) =>
      sample.name === name && Object.entries(labels).every(([key, text]) => sample.labels[key] === text);
    return this.samples.filter(wanted).reduce((sum, sample) => sum + sample.value, 0);
  }

  /** The samples of a metric by the value of one label, without those that are zero. */
  by(name, label) {
    const some = this.samples.filter((sample) => sample.name === name && sample.value !== 0);
    return Object.fromEntries(some.map((sample) => [sample.labels[label], sample.value]));
  }
}

/** The names of all metrics the sources declare: those every gateway has, and those of one with Redis, TLS or hooks. */
export function declaredMetrics() {
  const crates = fileURLToPath(new URL('../crates', import.meta.url));
  const declared = { memory: [], redis: [], tls: [], hooks: [] };
  for (const path of readdirSync(crates, { recursive: true })) {
    if (!/^[^/]+\/src\/.*\.rs$/.test(path)) continue;
    const redis = path.startsWith('redis/') || path.startsWith('node/src/sequencer');
    const own = path.startsWith('net/src/tls/certificate') ? 'tls' : path.startsWith('hooks/') ? 'hooks' : 'memory';
    const kind = redis ? 'redis' : own;
    const source = readFileSync(join(crates, path), 'utf8');
    const names = source.matchAll(/describe_(?:counter|gauge|histogram)!\(\s*"([^"]+)"/g);
    declared[kind].push(...[...names].map(([, name]) => name));
  }
  return declared;
}

/** Keeps everything that was pushed, and lets tests wait for it. */
export class Inbox {
  items = [];
  #waiting = new Set();

  push(item) {
    this.items.push(item);
    for (const check of this.#waiting) check();
  }

  /** Resolves to the first item that is `wanted`, also if it is there already. */
  first(wanted, what = 'an item') {
    return this.#when(() => this.items.find(wanted), what);
  }

  /** Resolves to all items as soon as there are `count`. */
  async many(count, what = `${count} items`) {
    await this.#when(() => (this.items.length >= count ? this.items : undefined), what);
    return [...this.items];
  }

  #when(find, what) {
    let check;
    const found = new Promise((resolve) => {
      check = () => {
        const item = find();
        if (item !== undefined) resolve(item);
      };
      this.#waiting.add(check);
      check();
    });
    return within(found, () => `${what}; so far: ${JSON.stringify(this.items)}`).finally(() =>
      this.#waiting.delete(check),
    );
  }
}

/** Keeps the named events of an emitter, each as its context with the name as `event`. */
export function record(emitter, ...names) {
  const inbox = new Inbox();
  for (const event of names) emitter.on(event, (context) => inbox.push({ event, ...context }));
  return inbox;
}

/** Waits for a promise, but not for ever. */
export async function within(promise, what, limit = LIMIT) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(
      () => reject(new Error(`waited in vain for ${typeof what === 'function' ? what() : what}`)),
      limit,
    );
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Asks again and again, until the answer is truthy; returns it. For what can only be asked, not waited for. */
export async function until(what, probe, limit = LIMIT) {
  const end = Date.now() + limit;
  for (;;) {
    const answer = await probe();
    if (answer) return answer;
    if (Date.now() > end) throw new Error(`waited in vain until ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** A token (HS256) with these claims. */
export function token(claims, { secret = SECRET, header = { alg: 'HS256', typ: 'JWT' } } = {}) {
  const signed = [header, claims].map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.');
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
}

/** The moment that lies this many seconds ahead, as tokens tell it. */
export function inSeconds(seconds) {
  return Math.floor(Date.now() / 1000) + seconds;
}

/** Runs a program to its end; resolves to its exit code and what it wrote. */
export async function run(program, args, { input = '', env = {} } = {}) {
  const child = spawn(program, args, { env: { ...environment(), ...env } });
  let [stdout, stderr] = ['', ''];
  child.stdout.on('data', (data) => (stdout += data));
  child.stderr.on('data', (data) => (stderr += data));
  // A program that does not read its input is no fault of ours.
  child.stdin.on('error', () => {});
  child.stdin.end(input);
  const [code] = await within(once(child, 'close'), `the end of ${program} ${args.join(' ')}`).finally(() =>
    child.kill('SIGKILL'),
  );
  return { code, stdout, stderr };
}

/** The environment without a proxy, which would come between tests and gateway, and without a gateway's settings. */
export function environment() {
  const foreign = (name) => /_proxy$/i.test(name) || /^FANWIRE_(_|API)/.test(name);
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !foreign(name)));
}

/** An address of loopback that nobody listens on at the moment. */
export async function freeAddress() {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return `127.0.0.1:${port}`;
}
