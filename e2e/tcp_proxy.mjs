// A way to the gateway that a test can cut.

import { once } from 'node:events';
import net from 'node:net';

export class TcpProxy {
  #sockets = new Set();
  #open = true;

  /** Listens on a free port and passes everything on to `port`. */
  static async to(port) {
    const proxy = new TcpProxy();
    proxy.port = port;
    proxy.server = net.createServer((near) => proxy.#join(near)).listen(0, '127.0.0.1');
    await once(proxy.server, 'listening');
    return proxy;
  }

  url(path = '/connection/websocket') {
    return `ws://127.0.0.1:${this.server.address().port}${path}`;
  }

  /** Leads new connections to another port. */
  lead(port) {
    this.port = port;
  }

  /** Kills every connection, without any goodbye. */
  drop() {
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }

  /** Kills every connection, and each new one, until `mend`. */
  cut() {
    this.#open = false;
    this.drop();
  }

  mend() {
    this.#open = true;
  }

  close() {
    this.cut();
    this.server.close();
  }

  #join(near) {
    if (!this.#open) return near.resetAndDestroy();
    const far = net.connect(this.port, '127.0.0.1');
    for (const [one, other] of [
      [near, far],
      [far, near],
    ]) {
      this.#sockets.add(one);
      one.setNoDelay(true);
      // Whatever ends one end, ends the other.
      one.on('error', () => {});
      one.on('close', () => {
        this.#sockets.delete(one);
        other.destroy();
      });
      one.pipe(other);
    }
  }
}
