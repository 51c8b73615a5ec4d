// Traces of the control plane, as a collector gets them.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { connect } from 'node:http2';
import { test } from 'node:test';

import { serve, until, within } from './fanwire.mjs';

const TRACE = '0af7651916cd43dd8448eb211c80319c';
const PARENT = 'b7ad6b7169203331';
const SERVER = 2; // the kind of a span
const SERVICE = 'fanwire.control.v1.Control';
const INVALID_ARGUMENT = 3;

test('requests become spans of the trace they belong to', async (t) => {
  const collector = await collects(t);
  const gateway = await serve(`${NAMESPACE}[trace]\nendpoint = "${collector.url}"\n`);
  t.after(() => gateway.child.kill('SIGKILL'));
  await call(gateway, 'publish', { channel: 'news', data: 1 }, `00-${TRACE}-${PARENT}-01`);
  await call(gateway, 'publish', { channel: 'news', data: 2 }, `00-${TRACE}-${PARENT}-00`);
  await call(gateway, 'info', {});
  await call(gateway, 'nothing', {});
  // The last ones are sent at the end.
  await gateway.stop();

  const named = (name) => collector.spans.filter((span) => span.name === name);
  const [published, ...more] = named('POST /api/publish');
  assert.deepEqual(more, [], 'whoever asked did not want the other one');
  assert.deepEqual([published.trace, published.parent, published.kind], [TRACE, PARENT, SERVER]);
  assert.notEqual(published.id, PARENT);
  const { 'http.request.method': method, 'url.path': path, 'http.response.status_code': status } = published.attributes;
  assert.deepEqual([method, path, status, published.attributes['client.address']], ['POST', '/api/publish', 200, '127.0.0.1']);
  assert.ok(published.end >= published.start && Math.abs(Number(published.start / 1_000_000n) - Date.now()) < 60_000);
  const [asked] = named('POST /api/info');
  assert.equal(asked.parent, '', 'it begins a trace');
  assert.notEqual(asked.trace, TRACE);
  assert.equal(named('POST /api/nothing')[0].attributes['http.response.status_code'], 404);
  assert.equal(collector.resource['service.name'], 'fanwire');
  assert.equal(collector.resource['service.instance.id'].length, 36);
});

test('calls of gRPC are spans until their answers end', async (t) => {
  const collector = await collects(t);
  const gateway = await serve(`${NAMESPACE}[trace]\nendpoint = "${collector.url}"\n`);
  t.after(() => gateway.child.kill('SIGKILL'));
  const session = connect(gateway.control);
  t.after(() => session.destroy());
  const ask = async (method) => {
    const headers = { ':method': 'POST', ':path': `/${SERVICE}/${method}`, 'content-type': 'application/grpc', te: 'trailers' };
    const stream = session.request({ ...headers, traceparent: `00-${TRACE}-${PARENT}-01` });
    stream.end(Buffer.alloc(5)); // an empty message
    stream.resume();
    await within(once(stream, 'close'), method);
  };
  await ask('Info');
  await ask('Publish');
  await gateway.stop();
  const codes = collector.spans.map(({ name, trace, attributes }) => [name, trace, attributes['rpc.grpc.status_code']]);
  assert.deepEqual(codes, [[`POST /${SERVICE}/Info`, TRACE, 0], [`POST /${SERVICE}/Publish`, TRACE, INVALID_ARGUMENT]]);
});

test('a share of the requests is traced, if wanted', async (t) => {
  const collector = await collects(t);
  const gateway = await serve(`${NAMESPACE}[trace]\nendpoint = "${collector.url}"\nsample = 0.0\n`);
  t.after(() => gateway.child.kill('SIGKILL'));
  for (let n = 0; n < 20; n += 1) await call(gateway, 'info', {});
  await call(gateway, 'info', {}, `00-${TRACE}-${PARENT}-01`);
  await gateway.stop();
  assert.deepEqual(collector.spans.map(({ trace }) => trace), [TRACE]);
});

test('a collector that is gone harms nobody, and is told of once', async (t) => {
  const collector = await collects(t);
  const gateway = await serve(`${NAMESPACE}[trace]\nendpoint = "${collector.url}"\n`);
  t.after(() => gateway.child.kill('SIGKILL'));
  collector.server.close();
  collector.server.closeAllConnections();
  await call(gateway, 'info', {});
  await until('it is in the log', () => /the collector does not take them/.test(gateway.errors));
  for (let n = 0; n < 20; n += 1) await call(gateway, 'info', {});
  await gateway.stop();
  assert.equal(gateway.errors.match(/the collector does not take them/g).length, 1);
});

const NAMESPACE = '[[namespace]]\nname = ""\n';

async function call(gateway, method, params, traceparent) {
  const headers = traceparent ? { traceparent } : {};
  const answer = await fetch(`${gateway.control}/api/${method}`, { method: 'POST', headers, body: JSON.stringify(params) });
  await answer.text();
}

/** A collector: keeps what is sent to it. */
async function collects(t) {
  const spans = [];
  const collector = { spans };
  const server = createServer(async (request, response) => {
    const parts = [];
    for await (const part of request) parts.push(part);
    const good = request.method === 'POST' && request.url === '/v1/traces' && request.headers['content-type'] === 'application/x-protobuf';
    if (good) read(Buffer.concat(parts));
    response.writeHead(good ? 200 : 400, { 'Content-Type': 'application/x-protobuf' }).end();
  });
  // As opentelemetry/proto/collector/trace/v1 has it.
  const read = (body) => {
    for (const { 1: [resource], 2: scopes } of fields(body)[1].map(fields)) {
      collector.resource = attributes(fields(resource)[1]);
      for (const span of scopes.flatMap((scope) => fields(scope)[2]).map(fields)) {
        spans.push({
          trace: span[1][0].toString('hex'),
          id: span[2][0].toString('hex'),
          parent: span[4]?.[0].toString('hex') ?? '',
          name: `${span[5][0]}`,
          kind: Number(span[6][0]),
          start: span[7][0].readBigUInt64LE(),
          end: span[8][0].readBigUInt64LE(),
          attributes: attributes(span[9]),
        });
      }
    }
  };
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  return Object.assign(collector, { server, url: `http://127.0.0.1:${server.address().port}/v1/traces` });
}

/** Attributes whose values are texts or numbers. */
function attributes(list) {
  const value = ({ 1: text, 3: number }) => (text ? `${text[0]}` : Number(number[0]));
  return Object.fromEntries(list.map(fields).map(({ 1: [key], 2: [any] }) => [`${key}`, value(fields(any))]));
}

/** The fields of a protobuf message: their values by number, bytes as they are. */
function fields(message) {
  const found = {};
  let at = 0;
  const varint = () => {
    let [value, shift] = [0n, 0n];
    for (;;) {
      const byte = message[at];
      at += 1;
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
      shift += 7n;
    }
  };
  const bytes = (length) => message.subarray(at, (at += length));
  while (at < message.length) {
    const key = varint();
    const [number, kind] = [Number(key >> 3n), Number(key & 7n)];
    const value = kind === 0 ? varint() : bytes(kind === 2 ? Number(varint()) : kind === 1 ? 8 : 4);
    (found[number] ??= []).push(value);
  }
  return found;
}
