// The npm package `centrifuge`, unmodified, in its two encodings, with the same calls for both.

import { Centrifuge as JsonCentrifuge } from 'centrifuge';
import { Centrifuge as ProtobufCentrifuge } from 'centrifuge/build/protobuf';
import WebSocket from 'ws';

import { Inbox, SECRET, record, token } from './fanwire.mjs';

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

/** The namespaces of the tests of this package. */
export const CONFIG = `
  [client]
  anonymous = true
  personal_channel = true
  max_channels = 100
  expiry_grace = "3s"

  [token]
  hmac_secret = "${SECRET}"

  [[namespace]]                   # personal channels
  name = ""
  join_leave = true
  force_join_leave = true
  publish = "subscriber"

  [[namespace]]                   # everything is on and allowed
  name = "open"
  presence = true
  join_leave = true
  history_size = 100
  history_ttl = "5m"
  recovery = true
  subscribe = "anyone"
  publish = "anyone"
  presence_read = "anyone"
  history_read = "anyone"

  [[namespace]]                   # nothing is on, and only subscribing is allowed
  name = "bare"
  subscribe = "anyone"

  [[namespace]]                   # nothing is on, and everything is allowed
  name = "off"
  subscribe = "anyone"
  presence_read = "anyone"
  history_read = "anyone"

  [[namespace]]                   # who has a token for the channel is in
  name = "private"
  presence = true
  subscribe = "token"
  publish = "subscriber"
  presence_read = "subscriber"

  [[namespace]]                   # a history that is soon outrun
  name = "short"
  history_size = 2
  history_ttl = "5m"
  recovery = true
  subscribe = "anyone"

  [[namespace]]                   # a history that is not
  name = "long"
  history_size = 2000
  history_ttl = "5m"
  recovery = true
  subscribe = "anyone"
  publish = "anyone"

  [[namespace]]                   # the latest counts
  name = "latest"
  history_size = 1
  history_ttl = "5m"
  recovery = true
  recovery_mode = "cache"
  subscribe = "anyone"
`;

/** A client that comes back quickly, for tests that cut its connection. */
export function newClient(encoding, url, options = {}) {
  return new encoding.Centrifuge(url, {
    websocket: WebSocket,
    minReconnectDelay: 10,
    maxReconnectDelay: 50,
    ...options,
  });
}

/** What tests in one encoding (by its name) do against a gateway. */
export function sdk(gateway, name) {
  const encoding = ENCODINGS[name];
  let channels = 0;

  /** A client that is gone when the test is over; `log` keeps its events. */
  function client(t, options = {}, url = gateway.url()) {
    const made = newClient(encoding, url, options);
    made.log = record(made, ...CLIENT_EVENTS);
    t.after(() => made.disconnect());
    return made;
  }

  async function connected(t, options, url) {
    const made = client(t, options, url);
    made.connect();
    await made.ready(10_000);
    return made;
  }

  /** A new subscription; `log` keeps its events, with data as the values they stand for. */
  function subscription(client, channel, options = {}) {
    const made = client.newSubscription(channel, { minResubscribeDelay: 10, maxResubscribeDelay: 50, ...options });
    made.log = new Inbox();
    const plain = (context) => ('data' in context ? { ...context, data: encoding.decode(context.data) } : context);
    for (const event of SUBSCRIPTION_EVENTS) made.on(event, (context) => made.log.push({ event, ...plain(context) }));
    made.subscribe();
    return made;
  }

  async function subscribed(client, channel, options) {
    const made = subscription(client, channel, options);
    await made.ready(10_000);
    return made;
  }

  /** A channel of this namespace that no other test uses. */
  function channelIn(namespace) {
    return `${namespace}:${name}-${(channels += 1)}`;
  }

  return { encoding, client, connected, subscription, subscribed, channelIn };
}

/** The options of a client with a token for this user. */
export function user(id, claims) {
  return { token: token({ sub: id, ...claims }) };
}

/** Tells events of these names. */
export function is(...events) {
  return ({ event }) => events.includes(event);
}

/** How many events of this name are in a log. */
export function count(log, event) {
  return log.items.filter(is(event)).length;
}

/** The data of the publications in a log, as soon as `last` is among them. */
export async function receivedUpTo(last, log) {
  const isLast = ({ event, data }) => event === 'publication' && data === last;
  await log.first(isLast, `publication ${JSON.stringify(last)}`);
  return log.items.filter(is('publication')).map(({ data }) => data);
}

const CLIENT_EVENTS = [
  'connecting',
  'connected',
  'disconnected',
  'error',
  'subscribed',
  'unsubscribed',
  'publication',
  'join',
  'leave',
];
const SUBSCRIPTION_EVENTS = ['subscribing', 'subscribed', 'unsubscribed', 'publication', 'join', 'leave', 'error'];
