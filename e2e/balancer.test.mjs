// HAProxy with the configurations of deploy/haproxy, with TLS: ending at the balancer, and passed on to the gateway.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import https from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import WebSocket from 'ws';

import { Inbox, freeAddress, run, serve, until, within } from './fanwire.mjs';

const HAPROXY = fileURLToPath(new URL('../deploy/haproxy', import.meta.url));
// Not the balancer's own.
const CLIENT = '127.0.0.9';
const KEY = 'the-key-of-this-test';
// The control plane at the public address: its log says where calls come from.
const CONFIG = `
[client]
insecure = true
[proxy]
trusted = ["127.0.0.1"]
[[api_key]]
name = "test"
secret = "${KEY}"
[[namespace]]
name = ""
`;
process.env.PATH += ':/usr/sbin';

let folder, ca;

before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'fanwire-e2e-'));
  const made = await run(join(HAPROXY, 'certificate.sh'), [folder]);
  assert.equal(made.code, 0, made.stderr);
  ca = readFileSync(join(folder, 'tls.crt'));
});
after(() => rmSync(folder, { recursive: true }));

test('TLS ends at the balancer, which says where clients are (X-Forwarded-For)', async (t) => {
  const gateway = await start(t, CONFIG);
  const port = await balance(t, gateway, ['haproxy.cfg', 'tls.cfg']);
  await serves(t, gateway, port);
});

test('TLS is passed on to the gateway, and where clients are with it (send-proxy-v2)', async (t) => {
  const tls = `[tls]\npublic = { cert_file = "${folder}/tls.crt", key_file = "${folder}/tls.key" }\n`;
  const gateway = await start(t, CONFIG.replace('[proxy]', '[proxy]\nprotocol = true') + tls);
  const port = await balance(t, gateway, ['passthrough.cfg']);
  await serves(t, gateway, port);
  assert.equal((await gateway.metrics()).sum('fanwire_proxy_headers_refused_total'), 0, 'its checks go elsewhere');
});

async function start(t, config) {
  const gateway = await serve(config, { oneAddress: true, log: 'level = "warn"\naudit = "all"' });
  t.after(() => gateway.stop());
  return gateway;
}

/** Starts HAProxy before a gateway that plays all three nodes; returns the port where TLS is spoken. */
async function balance(t, gateway, files) {
  const [LB_TLS, LB_PUBLIC, LB_CONTROL, LB_STATS] = await Promise.all([1, 2, 3, 4].map(freeAddress));
  const env = { ...process.env, LB_TLS, LB_PUBLIC, LB_CONTROL, LB_STATS, LB_CERTIFICATE: join(folder, 'tls.pem') };
  for (const node of ['NODE1', 'NODE2', 'NODE3']) {
    env[`${node}_HOST`] = '127.0.0.1';
    env[`${node}_PUBLIC`] = env[`${node}_CONTROL`] = `${gateway.port}`;
    env[`${node}_OPS`] = new URL(gateway.ops).port;
  }
  const args = ['-db', ...files.flatMap((file) => ['-f', join(HAPROXY, file)])];
  const haproxy = spawn('haproxy', args, { env, stdio: ['ignore', 'inherit', 'inherit'] });
  t.after(async () => {
    haproxy.kill('SIGKILL');
    await once(haproxy, 'close');
  });
  const port = Number(LB_TLS.split(':')[1]);
  await until('the balancer serves', () => call(port, 'info').then(() => true, () => false));
  return port;
}

async function serves(t, gateway, port) {
  const socket = new WebSocket(`wss://localhost:${port}/plain?channel=hall`, { ca, localAddress: CLIENT, family: 4 });
  t.after(() => socket.terminate());
  const received = new Inbox();
  socket.on('message', (data) => received.push(`${data}`));
  await within(once(socket, 'open'), 'the connection');
  await call(port, 'publish', { channel: 'hall', data: 'hello' });
  assert.equal(await received.first(() => true), '"hello"');
  const said = () => gateway.errors.split('\n').find((line) => line.includes('publish'));
  await until('the call is in the log', said);
  assert.match(said(), new RegExp(`peer="?${CLIENT.replaceAll('.', '\\.')}:\\d+`));
}

/** Calls the control plane through the balancer. */
function call(port, method, params = {}) {
  return new Promise((resolve, reject) => {
    const headers = { 'X-API-Key': KEY };
    const options = { host: 'localhost', port, ca, localAddress: CLIENT, family: 4, method: 'POST', headers, agent: false };
    const request = https.request({ ...options, path: `/api/${method}` }, (answer) => {
      let body = '';
      answer.on('data', (data) => (body += data));
      answer.on('end', () => (answer.statusCode === 200 ? resolve(body) : reject(new Error(`${answer.statusCode} ${body}`))));
    });
    request.on('error', reject);
    request.end(JSON.stringify(params));
  });
}
