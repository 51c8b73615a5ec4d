// The npm package `centrifuge`, in its two encodings, with the same calls for both.

import { Centrifuge as JsonCentrifuge } from 'centrifuge';
import { Centrifuge as ProtobufCentrifuge } from 'centrifuge/build/protobuf';
import WebSocket from 'ws';

/** How each encoding makes a client, and carries a JSON value as data. */
export const ENCODINGS = {
  json: {
    Centrifuge: JsonCentrifuge,
    encode: (value) => value,
    decode: (data) => data,
  },
  protobuf: {
    Centrifuge: ProtobufCentrifuge,
    encode: (value) => new TextEncoder().encode(JSON.stringify(value)),
    decode: (data) => (data?.length ? JSON.parse(new TextDecoder().decode(data)) : undefined),
  },
};

/** A client that comes back quickly, for tests that cut its connection. */
export function newClient(encoding, url, options = {}) {
  return new encoding.Centrifuge(url, { websocket: WebSocket, minReconnectDelay: 10, maxReconnectDelay: 50, ...options });
}
