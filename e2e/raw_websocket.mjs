// A WebSocket client that sends whatever it is told, also what no client library would.

import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import net from 'node:net';

import { Inbox, within } from './fanwire.mjs';

export const TEXT = 0x1;
export const BINARY = 0x2;
export const CLOSE = 0x8;
export const PING = 0x9;

/** The bytes of a frame. */
export function frame(opcode, payload = '', { fin = true, masked = true, reserved = 0 } = {}) {
  const data = Buffer.from(payload);
  const short = data.length < 126 ? data.length : data.length < 65_536 ? 126 : 127;
  const length = Buffer.alloc(short === 126 ? 2 : short === 127 ? 8 : 0);
  if (short === 126) length.writeUInt16BE(data.length);
  if (short === 127) length.writeBigUInt64BE(BigInt(data.length));
  const head = Buffer.from([(fin ? 0x80 : 0) | (reserved << 4) | opcode, (masked ? 0x80 : 0) | short]);
  if (!masked) return Buffer.concat([head, length, data]);
  const mask = randomBytes(4);
  return Buffer.concat([head, length, mask, data.map((byte, index) => byte ^ mask[index % 4])]);
}

export class RawWebSocket {
  /** The frames that came, each as `{opcode, payload}`. */
  frames = new Inbox();
  #bytes = Buffer.alloc(0);

  /** Opens a connection, with these headers beside those that WebSocket asks for. */
  static async open(gateway, path = '/connection/websocket', headers = {}) {
    const raw = new RawWebSocket();
    raw.socket = net.connect(gateway.port, '127.0.0.1');
    raw.socket.on('error', () => {});
    raw.ended = new Promise((resolve) => raw.socket.on('close', resolve));
    const given = {
      Host: `127.0.0.1:${gateway.port}`,
      Upgrade: 'websocket',
      Connection: 'Upgrade',
      'Sec-WebSocket-Version': '13',
      'Sec-WebSocket-Key': randomBytes(16).toString('base64'),
      ...headers,
    };
    const lines = Object.entries(given).map(([name, value]) => `${name}: ${value}\r\n`);
    raw.socket.write(`GET ${path} HTTP/1.1\r\n${lines.join('')}\r\n`);
    await within(raw.#upgrade(), 'the answer to the upgrade');
    raw.#read();
    raw.socket.on('data', (data) => {
      raw.#bytes = Buffer.concat([raw.#bytes, data]);
      raw.#read();
    });
    return raw;
  }

  send(...frames) {
    this.socket.write(Buffer.concat(frames));
  }

  sendJson(command) {
    this.send(frame(TEXT, JSON.stringify(command)));
  }

  /** Resolves to the first reply or push (JSON) that is `wanted`. */
  async reply(wanted, what = 'a reply') {
    const replies = ({ opcode, payload }) =>
      opcode === TEXT
        ? payload
            .toString()
            .split('\n')
            .map((line) => JSON.parse(line))
        : [];
    const found = await this.frames.first((frame) => replies(frame).some(wanted), what);
    return replies(found).find(wanted);
  }

  /** Resolves to the code and reason that the server closes with. */
  async closed() {
    const { payload } = await this.frames.first(({ opcode }) => opcode === CLOSE, 'a close frame');
    return { code: payload.readUInt16BE(0), reason: payload.subarray(2).toString() };
  }

  async #upgrade() {
    for (;;) {
      const [data] = await Promise.race([once(this.socket, 'data'), this.ended.then(() => [null])]);
      if (data === null) throw new Error('the connection ended before it was open');
      this.#bytes = Buffer.concat([this.#bytes, data]);
      const end = this.#bytes.indexOf('\r\n\r\n');
      if (end < 0) continue;
      const head = this.#bytes.subarray(0, end).toString();
      if (!head.startsWith('HTTP/1.1 101 ')) throw new Error(`no upgrade: ${head}`);
      this.#bytes = this.#bytes.subarray(end + 4);
      return;
    }
  }

  #read() {
    for (;;) {
      if (this.#bytes.length < 2) return;
      const short = this.#bytes[1] & 0x7f;
      const at = short === 126 ? 4 : short === 127 ? 10 : 2;
      if (this.#bytes.length < at) return;
      const length =
        short === 126 ? this.#bytes.readUInt16BE(2) : short === 127 ? Number(this.#bytes.readBigUInt64BE(2)) : short;
      if (this.#bytes.length < at + length) return;
      this.frames.push({ opcode: this.#bytes[0] & 0x0f, payload: this.#bytes.subarray(at, at + length) });
      this.#bytes = this.#bytes.subarray(at + length);
    }
  }
}
