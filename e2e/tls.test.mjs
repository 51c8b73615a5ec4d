// TLS: client libraries over wss, both versions with OpenSSL at the other end, certificates that change under load.

import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, renameSync, rmSync, symlinkSync, mkdirSync, writeFileSync } from 'node:fs';
import http2 from 'node:http2';
import https from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import tls from 'node:tls';

import WebSocket from 'ws';

import { Inbox, declaredMetrics, run, serve, until, within } from './fanwire.mjs';
import { CONFIG, ENCODINGS, newClient } from './sdk.mjs';

let folder, gateway, ca, backend;

before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'fanwire-tls-'));
  ca = await newCertificate('first');
  pointTo('first');
  await newCertificate('authority');
  const signed = ['-CA', 'authority/tls.crt', '-CAkey', 'authority/tls.key', '-addext', 'basicConstraints=CA:FALSE'];
  backend = { cert: await newCertificate('backend', signed), key: readFileSync(join(folder, 'backend/tls.key')) };
  const files = `cert_file = "${folder}/data/tls.crt", key_file = "${folder}/data/tls.key"`;
  gateway = await serve(`${CONFIG}
    [tls]
    public = { ${files} }
    control = { ${files}, client_ca_file = "${folder}/authority/tls.crt" }
  `);
});
after(async () => {
  await gateway?.stop();
  rmSync(folder, { recursive: true });
});

for (const encoding of Object.keys(ENCODINGS)) {
  test(`the centrifuge package over wss, in ${encoding}`, async (t) => {
    const { log } = await subscriber(t, encoding, `open:${encoding}`);
    await publish(`open:${encoding}`, 'hello');
    assert.equal(await log.first(() => true), 'hello');
  });
}

for (const version of ['TLSv1.2', 'TLSv1.3']) {
  test(`large messages over ${version}`, async (t) => {
    const socket = new WebSocket(`${gateway.public.replace('https', 'wss')}/plain?channel=open:${version}`, {
      ca,
      minVersion: version,
      maxVersion: version,
    });
    t.after(() => socket.terminate());
    const received = new Inbox();
    socket.on('message', (data) => received.push(`${data}`));
    await within(once(socket, 'open'), 'the connection');
    const messages = Array.from({ length: 20 }, (_, i) => `${i}`.repeat(30_000));
    for (const message of messages) socket.send(message);
    assert.deepEqual(await received.many(messages.length), messages);
    socket.close(1000);
    const [code] = await within(once(socket, 'close'), 'the end');
    assert.equal(code, 1000);
  });
}

test('nothing older than TLS 1.2, and nothing without TLS', async () => {
  const old = tls.connect({
    port: gateway.port,
    host: '127.0.0.1',
    ca,
    minVersion: 'TLSv1',
    maxVersion: 'TLSv1.1',
    ciphers: 'DEFAULT@SECLEVEL=0',
  });
  const [refused] = await within(once(old, 'error'), 'the refusal');
  assert.match(refused.code, /PROTOCOL_VERSION|UNSUPPORTED_PROTOCOL|HANDSHAKE_FAILURE/);
  await assert.rejects(fetch(`http://127.0.0.1:${gateway.port}/`));
});

test('the control plane knows its clients by their certificates', async () => {
  await assert.rejects(publish('open:mine', 1, {}), /certificate required|socket hang up|ECONNRESET|EPIPE/);
  assert.deepEqual(await publish('open:mine', 1), 200);
  await post('disconnect', { user: 'nobody' });
  const named = /audit: call .*certificate="CN=gateway.test" .*method="disconnect"/;
  await until('the log names the certificate', () => named.test(gateway.errors));
});

test('the control plane speaks HTTP/2 over TLS', async (t) => {
  const session = http2.connect(gateway.control, { rejectUnauthorized: false, ...backend });
  t.after(() => session.close());
  const stream = session.request({ ':method': 'POST', ':path': '/api/publish' });
  stream.end(JSON.stringify({ channel: 'open:h2', data: 1 }));
  const [headers] = await within(once(stream, 'response'), 'an answer');
  assert.equal(headers[':status'], 200);
  assert.equal(session.alpnProtocol, 'h2');
});

test('certificates change under load, and nobody notices', async (t) => {
  const channel = 'long:swap';
  const clients = [];
  for (const encoding of ['json', 'protobuf', 'json']) clients.push(await subscriber(t, encoding, channel));
  let published = 0;
  let ended = false;
  const publishing = (async () => {
    while (!ended) await publish(channel, (published += 1));
  })();
  for (const name of ['second', 'third', 'fourth']) {
    const cert = await newCertificate(name);
    pointTo(name);
    gateway.child.kill('SIGHUP');
    await until(`new connections see the ${name}`, async () => (await shown()) === fingerprint(cert));
    const enough = published + 5;
    await until('publications have passed', () => published >= enough);
  }
  ended = true;
  await publishing;
  for (const { client, log } of clients) {
    await log.first((data) => data === published, `publication ${published}`);
    assert.deepEqual(log.items, Array.from({ length: published }, (_, i) => i + 1));
    assert.equal(client.connects, 1, 'nobody was disconnected');
  }
});

test('a pair that does not fit is refused, and the one before stays', async () => {
  const before = await shown();
  await newCertificate('fifth');
  writeFileSync(join(folder, 'fifth/tls.key'), readFileSync(join(folder, 'first/tls.key')));
  pointTo('fifth');
  gateway.child.kill('SIGHUP');
  const failed = async () => (await gateway.metrics()).sum('fanwire_tls_certificate_reloads_total', { outcome: 'failed' });
  await until('it is counted', async () => (await failed()) === 2);
  assert.equal(await shown(), before);
  assert.match(gateway.errors, /WARN.*the certificate files are no good: the one before stays.*KeyMismatch/s);
});

test('every metric of TLS is there', async () => {
  const metrics = await gateway.metrics();
  const { tls: declared } = declaredMetrics();
  assert.ok(declared.length >= 2, declared.join());
  for (const name of declared) assert.ok(metrics.samples.some((sample) => sample.name === name), `${name} has no sample`);
  const expiry = metrics.sum('fanwire_tls_certificate_expiry_timestamp_seconds', { listener: 'public' });
  assert.ok(Math.abs(expiry - Date.now() / 1000 - 30 * 86_400) < 3600, `${expiry}`);
});

/** Makes a certificate that vouches for itself, good for 30 days, in a folder of this name. */
async function newCertificate(name, more = []) {
  mkdirSync(join(folder, name));
  const cert = join(folder, name, 'tls.crt');
  const made = await run('openssl', [
    ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '30'],
    ...['-subj', '/CN=gateway.test', '-addext', 'subjectAltName=IP:127.0.0.1'],
    ...['-keyout', join(folder, name, 'tls.key'), '-out', cert, ...more.map(absolute)],
  ]);
  assert.equal(made.code, 0, made.stderr);
  return readFileSync(cert);
}

function absolute(argument) {
  return argument.includes('/') ? join(folder, argument) : argument;
}

/** Exchanges the folder that the gateway reads, as Kubernetes does with a secret. */
function pointTo(name) {
  symlinkSync(name, join(folder, 'new'));
  renameSync(join(folder, 'new'), join(folder, 'data'));
}

/** The fingerprint of the certificate that a new connection is shown. */
async function shown() {
  const socket = tls.connect({ port: gateway.port, host: '127.0.0.1', rejectUnauthorized: false });
  await within(once(socket, 'secureConnect'), 'a handshake');
  const { fingerprint256 } = socket.getPeerCertificate();
  socket.destroy();
  return fingerprint256;
}

function fingerprint(pem) {
  return new X509Certificate(pem).fingerprint256;
}

/** Publishes, with the backend's certificate unless told otherwise; resolves to the status. */
function publish(channel, data, own = backend) {
  return post('publish', { channel, data }, own);
}

async function post(method, params, own = backend) {
  const asked = https.request(`${gateway.control}/api/${method}`, {
    method: 'POST',
    agent: false,
    rejectUnauthorized: false,
    ...own,
  });
  asked.end(JSON.stringify(params));
  const [answer] = await within(once(asked, 'response'), 'an answer');
  answer.resume();
  await once(answer, 'end');
  return answer.statusCode;
}

async function subscriber(t, encoding, channel) {
  const { decode } = ENCODINGS[encoding];
  class Secure extends WebSocket {
    constructor(url, protocols) {
      super(url, protocols, { rejectUnauthorized: false });
    }
  }
  const url = `${gateway.public.replace('https', 'wss')}/connection/websocket`;
  const client = newClient(ENCODINGS[encoding], url, { websocket: Secure });
  client.connects = 0;
  client.on('connected', () => (client.connects += 1));
  t.after(() => client.disconnect());
  const log = new Inbox();
  const subscription = client.newSubscription(channel);
  subscription.on('publication', ({ data }) => log.push(decode(data)));
  subscription.subscribe();
  client.connect();
  await within(subscription.ready(), 'the subscription');
  return { client, log };
}
