// PublishStream of the control API over HTTP/2, by hand: as little between a test and the wire as there can be.

import { connect } from 'node:http2';

/**
 * Opens a call at the control plane with this URL. `write` takes requests, as `request` encodes them; `end` closes this side. `onAcknowledged`
 * gets each `{ id, code, offset, epoch }`, `onEnd` the status of gRPC, or `undefined` if the connection broke.
 */
export function openStream(url, { onAcknowledged, onEnd = () => {} }) {
  const session = connect(url, { settings: { initialWindowSize: 1 << 20 } });
  const call = session.request({
    ':method': 'POST',
    ':path': '/fanwire.control.v1.Control/PublishStream',
    'content-type': 'application/grpc',
    te: 'trailers',
  });
  let left = Buffer.alloc(0);
  let status;
  call.on('data', (chunk) => {
    left = left.length > 0 ? Buffer.concat([left, chunk]) : chunk;
    let at = 0;
    while (left.length - at >= 5) {
      const end = at + 5 + left.readUInt32BE(at + 1);
      if (end > left.length) break;
      onAcknowledged(acknowledgement(left.subarray(at + 5, end)));
      at = end;
    }
    left = left.subarray(at);
  });
  call.on('trailers', (trailers) => (status = Number(trailers['grpc-status'])));
  // A broken connection is told by how the call ends.
  session.on('error', () => {});
  call.on('error', () => {});
  call.on('close', () => (session.close(), onEnd(status)));
  return call;
}

/** A request with its frame around it. */
export function request(id, { channel, data, key = '' }) {
  const publish = Buffer.concat([text(1, channel), text(2, JSON.stringify(data)), key ? text(6, key) : Buffer.alloc(0)]);
  const message = Buffer.concat([Buffer.from([8]), varint(id), field(2, publish)]);
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}

function acknowledgement(message) {
  const { 1: id = 0, 2: error, 3: result } = read(message);
  if (error) return { id, code: read(error)[1] };
  const { 1: offset = 0, 2: epoch = '' } = read(result);
  return { id, code: 0, offset, epoch: `${epoch}` };
}

/** The fields of a message, by number. */
function read(message) {
  const fields = {};
  let at = 0;
  const number = () => {
    let [value, shift] = [0, 1];
    for (;;) {
      const byte = message[at++];
      value += (byte & 127) * shift;
      if (byte < 128) return value;
      shift *= 128;
    }
  };
  while (at < message.length) {
    const tag = number();
    const value = number();
    if ((tag & 7) === 0) fields[tag >> 3] = value;
    else fields[tag >> 3] = message.subarray(at, (at += value));
  }
  return fields;
}

function text(number, value) {
  return field(number, Buffer.from(value));
}

function field(number, value) {
  return Buffer.concat([Buffer.from([(number << 3) | 2]), varint(value.length), value]);
}

function varint(value) {
  const bytes = [];
  for (; value > 127; value = Math.floor(value / 128)) bytes.push((value & 127) | 128);
  return Buffer.from([...bytes, value]);
}
