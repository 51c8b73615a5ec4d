// A real Redis server for a test.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { until } from './fanwire.mjs';

/** Starts a Redis server on a free port; it keeps nothing. */
export async function startRedis() {
  const folder = mkdtempSync(join(tmpdir(), 'fanwire-e2e-'));
  const port = await freePort();
  const options = ['--bind', '127.0.0.1', '--port', `${port}`, '--dir', folder, '--save', ''];
  const child = spawn('redis-server', options, { stdio: 'ignore' });
  let failed = null;
  child.on('error', (error) => (failed = error));
  const killed = () => child.kill('SIGKILL');
  process.on('exit', killed);
  const ask = (...words) =>
    new Promise((resolve, reject) => {
      const socket = connect(port, '127.0.0.1', () => socket.write(`${words.join(' ')}\r\n`));
      socket.once('data', (data) => (resolve(`${data}`), socket.destroy()));
      socket.once('error', reject);
    });
  await until('redis-server answers', async () => {
    assert.equal(failed, null, 'redis-server does not start');
    return ask('PING').catch(() => null);
  });
  const stop = () => {
    process.off('exit', killed);
    child.kill('SIGKILL');
    rmSync(folder, { recursive: true });
  };
  return { port, ask, stop, signal: (name) => child.kill(name) };
}

/** Below those which outgoing connections are given: so it is still free when the server starts. */
async function freePort() {
  for (;;) {
    const port = 10_000 + Math.floor(Math.random() * 20_000);
    const server = createServer();
    const listens = new Promise((resolve) => {
      server.once('listening', () => resolve(true)).once('error', () => resolve(false));
    });
    server.listen(port, '127.0.0.1');
    if (await listens) {
      await new Promise((resolve) => server.close(resolve));
      return port;
    }
  }
}
