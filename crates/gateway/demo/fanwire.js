/**
 * A small client for Fanwire's native protocol: JSON over a WebSocket, no dependencies.
 *
 *     const fanwire = new Fanwire('ws://localhost:8000/connection/websocket');
 *     const lobby = fanwire.subscribe('chat:lobby', { publication: ({ data }) => console.log(data) });
 *     fanwire.connect();
 *     await lobby.publish({ text: 'hello' }); // later, once connected
 *
 * The protocol on one page:
 *
 * - The client sends *commands*, the server answers each with a *reply* of the same `id`:
 *       → {"id":1,"connect":{}}                        ← {"id":1,"connect":{"client":"5c1f…","ping":25,"pong":true}}
 *       → {"id":2,"subscribe":{"channel":"chat:lobby"}}  ← {"id":2,"subscribe":{"epoch":"x7Qd","offset":41}}
 *       → {"id":3,"publish":{"channel":"chat:lobby","data":{"text":"hello"}}}   ← {"id":3,"publish":{}}
 *   or with an error: ← {"id":3,"error":{"code":103,"message":"permission denied"}}
 * - A reply without an id is a *push*: something happened in a channel.
 *       ← {"push":{"channel":"chat:lobby","pub":{"data":{"text":"hello"},"offset":42}}}
 * - An empty reply `{}` is a ping, and an empty command `{}` is the pong.
 * - One WebSocket frame carries one or more of them, separated by newlines. What is zero or empty is left out.
 */
export class Fanwire {
  state = 'disconnected'; // or `connecting`, also while it waits for the next attempt, or `connected`
  session = null; // what the server answered to `connect`: `client` is this connection's id, `node` where it is held
  onstate = () => {}; // gets the state and, when a connection has ended, `{ code, reason, delay }`: ms until the next
  onframe = () => {}; // gets `in` or `out` and the text of every frame

  #url;
  #token;
  #socket;
  #subscriptions = new Map(); // channel → Subscription
  #waiting = new Map(); // command id → who waits for the reply
  #lastId = 0;
  #attempt = 0;
  #timer; // One is enough: the next attempt, or else the longest silence to put up with.

  constructor(url, { token } = {}) {
    this.#url = url;
    this.#token = token;
  }

  connect() {
    if (this.state !== 'disconnected') return;
    this.#attempt = 0;
    this.#dial();
  }

  /** Ends the connection until `connect()`. Subscriptions and their positions are kept, so nothing is missed. */
  disconnect() {
    this.#hangUp();
    this.#setState('disconnected');
  }

  /** Loses the connection the way a bad network does. It comes back by itself. */
  drop() {
    if (this.#socket) this.#lost(1006, 'dropped');
  }

  /** Joins a channel, at once or as soon as there is a connection. The handlers are listed at `Subscription`. */
  subscribe(channel, handlers) {
    const subscription = new Subscription(this, channel, handlers);
    this.#subscriptions.set(channel, subscription);
    this.ask(subscription.request(), subscription.answered); // Without a connection, the next one asks.
    return subscription;
  }

  unsubscribe(channel) {
    if (this.#subscriptions.delete(channel)) this.ask({ unsubscribe: { channel } }, () => {});
  }

  /** Sends a command, for example `{ publish: { channel, data } }`; resolves to the result, rejects with the error. */
  call(request) {
    return new Promise((resolve, reject) => {
      this.ask(request, (error, result) => (error ? reject(error) : resolve(result)));
    });
  }

  // With a callback: the next push may be in the same frame, and a promise is told only after the whole frame.
  ask(request, done) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#send([request, done]);
    else done(LOST);
  }

  #dial() {
    this.#setState('connecting');
    this.#socket = new WebSocket(this.#url);
    this.#socket.onopen = () => this.#greet();
    this.#socket.onmessage = (event) => this.#receive(event.data);
    this.#socket.onclose = (event) => this.#lost(event.code, event.reason);
    this.#expectWithin(10_000);
  }

  /** `connect` has to be first. The subscriptions need not wait for its reply: all of it is one frame, one round trip. */
  #greet() {
    const connect = [{ connect: { token: this.#token } }, (error, session) => this.#welcomed(error, session)];
    const subscribe = [...this.#subscriptions.values()].map((each) => [each.request(), each.answered]);
    this.#send(connect, ...subscribe);
  }

  #welcomed(error, session) {
    if (error === LOST) return;
    // A refusal that is not temporary would be repeated: it ends like a close code of that kind.
    if (error) return this.#lost(error.temporary ? 3004 : 3500, `${error.code} ${error.message}`);
    this.session = session;
    this.#attempt = 0;
    this.#setState('connected');
  }

  #send(...questions) {
    const lines = questions.map(([request, done]) => {
      this.#waiting.set(++this.#lastId, done);
      return JSON.stringify({ id: this.#lastId, ...request });
    });
    this.#write(lines.join('\n'));
  }

  #write(frame) {
    this.onframe('out', frame);
    this.#socket.send(frame);
  }

  #receive(frame) {
    this.onframe('in', frame);
    for (const line of frame.split('\n')) {
      if (line.trim() && this.#socket) this.#handle(JSON.parse(line));
    }
    // The server pings every `ping` seconds. If it is silent for much longer, the connection is dead.
    if (this.session?.ping) this.#expectWithin((this.session.ping + 10) * 1000);
  }

  #handle({ id, error, push, ...results }) {
    if (id) {
      const done = this.#waiting.get(id);
      this.#waiting.delete(id);
      done?.(error, Object.values(results)[0] ?? {}); // What is left has the command's name: {"id":3,"publish":{}}
    } else if (push) {
      this.#subscriptions.get(push.channel)?.push(push);
    } else if (this.session?.pong) {
      this.#write('{}');
    }
  }

  #expectWithin(milliseconds) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#lost(3012, 'nothing heard from the server'), milliseconds);
  }

  #lost(code, reason) {
    this.#hangUp();
    if (!reconnects(code)) return this.#setState('disconnected', { code, reason });
    // Full jitter: clients that were cut off together must not come back together.
    const delay = Math.random() * Math.min(20_000, 500 * 2 ** this.#attempt++);
    this.#timer = setTimeout(() => this.#dial(), delay);
    this.#setState('connecting', { code, reason, delay });
  }

  #hangUp() {
    clearTimeout(this.#timer);
    const [socket, waiting] = [this.#socket, this.#waiting];
    if (socket) socket.onopen = socket.onmessage = socket.onclose = null;
    socket?.close();
    this.#socket = this.session = null;
    this.#waiting = new Map();
    waiting.forEach((done) => done(LOST));
  }

  #setState(state, why = {}) {
    this.state = state;
    this.onstate(state, why);
  }
}

/**
 * One channel. Its handlers, all optional:
 *
 * - `subscribed({ recovering, recovered, publications })`: we are in. After a reconnect `recovering` is true, and
 *   `recovered` tells whether the server still had everything we missed: it is in `publications` and is handed over
 *   right after this. If it had not, something is missing, and only the application knows what to do about that.
 * - `publication({ data, info, offset, tags }, { recovered })`: `info.client` is the sender's connection.
 * - `join(info)`, `leave(info)`: the connection `info.client` came or went.
 * - `failed(error)`: the server does not let us in, or has put us out.
 *
 * Among them may be `since`, a position to start from: `{ epoch: '', offset: 0 }` is all that history holds.
 */
export class Subscription {
  #client;
  #handlers;

  constructor(client, channel, handlers) {
    this.#client = client;
    this.#handlers = handlers;
    this.channel = channel;
    // The last publication seen, which is all that recovery needs to know: a channel's publications are numbered
    // (`offset`), and the numbers are good for as long as the `epoch` stays the same.
    this.position = handlers.since;
  }

  publish(data) {
    return this.#client.call({ publish: { channel: this.channel, data } });
  }

  /** Who is here: a map from connection ids to what is known about them. */
  async presence() {
    return (await this.#client.call({ presence: { channel: this.channel } })).presence ?? {};
  }

  /** What was published: `{ limit, reverse, since }`; limit -1 is all there is, `reverse` starts at the newest. */
  async history(options) {
    return (await this.#client.call({ history: { channel: this.channel, ...options } })).publications ?? [];
  }

  // From here on it is for Fanwire to call.
  request() {
    const request = { channel: this.channel, recoverable: true, join_leave: 'join' in this.#handlers };
    return { subscribe: this.position ? { ...request, recover: true, ...this.position } : request };
  }

  answered = (error, result) => {
    if (error === LOST) return;
    if (error) return this.#handlers.failed?.(error);
    const { epoch, offset = 0, publications = [], recovered = false, was_recovering: recovering = false } = result;
    this.position = epoch === undefined ? undefined : { epoch, offset };
    this.#handlers.subscribed?.({ recovering, recovered, publications });
    for (const publication of publications) this.#deliver(publication, { recovered });
  };

  push({ pub, join, leave, unsubscribe }) {
    if (pub) this.#deliver(pub, { recovered: false });
    if (join) this.#handlers.join?.(join.info);
    if (leave) this.#handlers.leave?.(leave.info);
    // From 2500 on it means "ask again": typically, the position has to be recovered.
    if (unsubscribe?.code >= 2500) return this.#client.ask(this.request(), this.answered);
    if (!unsubscribe) return;
    this.#client.unsubscribe(this.channel);
    this.#handlers.failed?.({ code: unsubscribe.code, message: unsubscribe.reason });
  }

  #deliver(publication, how) {
    if (publication.offset && this.position) this.position.offset = publication.offset;
    this.#handlers.publication?.(publication, how);
  }
}

/** The answer to every command whose connection ended before the server's reply. */
const LOST = { code: 0, message: 'not connected', temporary: true };

/** Whether a close code leaves hope. 1009: a message of ours is too big, and would be too big again. */
function reconnects(code) {
  return code !== 1009 && !(code >= 3500 && code < 4000) && !(code >= 4500 && code < 5000);
}
