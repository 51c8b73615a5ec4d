// deploy/local-cluster.sh: a whole cluster with its balancer and its monitoring, as somebody who tries it out has it.

import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { BINARY, Inbox, Metrics, declaredMetrics, run, until, within } from './fanwire.mjs';
import { ENCODINGS, newClient } from './sdk.mjs';

const SCRIPT = fileURLToPath(new URL('../deploy/local-cluster.sh', import.meta.url));
const KEY = readFileSync(new URL('../deploy/secrets/api-key', import.meta.url), 'utf8').trim();
const NODES = ['node1', 'node2', 'node3'];
/** The clients that a node which goes down lets go in any second, at most. */
const RATE = 10;
const ROOT = fileURLToPath(new URL('..', import.meta.url));
// Where `./test e2e-tools` puts Prometheus' programs, and Debian HAProxy.
process.env.PATH += `:${join(ROOT, '.test/deploy/bin')}:/usr/sbin`;
const DASHBOARDS = filesIn('deploy/grafana/dashboards', '.json');

describe('a cluster of plain processes', () => {
  const folder = mkdtempSync(join(tmpdir(), 'fanwire-e2e-'));
  // The balancer notices within two seconds that a node is not ready. The log says when which connection was ended.
  const env = {
    CLUSTER_DIR: join(folder, 'cluster'),
    FANWIRE_BIN: BINARY,
    FANWIRE__DRAIN__GRACE: '3s',
    FANWIRE__DRAIN__RATE: `${RATE}`,
    FANWIRE__DRAIN__DEADLINE: '30s',
    FANWIRE__LOG__LEVEL: 'info,fanwire_node=debug',
  };
  const script = (...args) => run(SCRIPT, args, { env });
  const port = (offset) => Number(env.CLUSTER_PORT) + offset;
  const url = () => `ws://127.0.0.1:${port(0)}/connection/websocket`;
  const pid = (part) => Number(readFileSync(join(env.CLUSTER_DIR, 'pids', part), 'utf8').split(' ')[0]);

  before(async () => {
    for (let attempts = 0; ; attempts++) {
      // Below the ports that systems give to outgoing connections. The script tells when one is taken.
      env.CLUSTER_PORT = `${10_000 + Math.floor(Math.random() * 220) * 100}`;
      const up = await script('up');
      if (up.code === 0) break;
      assert.ok(up.stderr.startsWith('taken on') && attempts < 10, up.stderr);
    }
    // The loss of a node is an alert after 5 s, for this test; everything else is as it is.
    const rules = readFileSync(join(ROOT, 'deploy/prometheus/alerts.yml'), 'utf8');
    const sooner = rules.replace(/(alert: FanwireNodeDown\n.*\n +for: )30s/, '$15s');
    assert.notEqual(sooner, rules);
    rmSync(join(env.CLUSTER_DIR, 'prometheus/alerts.yml'));
    writeFileSync(join(env.CLUSTER_DIR, 'prometheus/alerts.yml'), sooner);
    process.kill(pid('prometheus'), 'SIGHUP');
    await until('its rules are read again', async () => JSON.stringify(await prometheus('rules')).includes('"duration":5,'));
  });

  after(async () => {
    await script('down');
    rmSync(folder, { recursive: true });
  });

  test('clients of one address are on all nodes, get everything once, and survive the loss of a node', async (t) => {
    const clients = await Promise.all(NODES.map(() => subscriber(t, url(), 'chat:all')));
    const connections = async (n) => (await metrics(port(21 + n))).sum('fanwire_connections');
    assert.deepEqual(await Promise.all(NODES.map((_, n) => connections(n))), [1, 1, 1]);
    for (let n = 0; n < 3; n++) await publish(port(10), n, 'chat:all');
    await Promise.all(clients.map(({ inbox }) => inbox.first((item) => item === 2)));

    process.kill(pid('node2'), 'SIGKILL');
    await until('its client is elsewhere', async () => (await connections(0)) + (await connections(2)) === 3);
    await publish(port(10), 3, 'chat:all');
    await Promise.all(clients.map(({ inbox }) => inbox.first((item) => item === 3)));
    for (const { inbox } of clients) assert.deepEqual(inbox.items, [0, 1, 2, 3]);
    assert.deepEqual(clients.flatMap(({ recovered }) => recovered), [true], 'one client came back, and missed nothing');

    const gone = await script('status');
    assert.equal(gone.code, 1);
    assert.match(gone.stdout, /^node2 +is gone$/m);
    await until('Prometheus has seen it', () => asked(`up{job="fanwire",instance="127.0.0.1:${port(22)}"} == 0`));
  });

  test('what dashboards, alerts and documents name is measured, and what is measured is documented', async () => {
    const text = await (await fetch(`http://127.0.0.1:${port(21)}/metrics`)).text();
    const linted = await run('promtool', ['check', 'metrics'], { input: text });
    assert.equal(linted.code, 0, linted.stderr);

    const { samples, types } = new Metrics(text);
    // The cluster has no TLS and no hooks: `tls.test.mjs` and `hooks.test.mjs` look at their metrics.
    const { tls, hooks } = declaredMetrics();
    const elsewhere = [...tls, ...hooks].flatMap((name) => [name, `${name}_bucket`]);
    const measured = new Set([...types.keys(), ...samples.map(({ name }) => name), ...elsewhere]);
    for (const [file, names] of namedMetrics()) {
      assert.deepEqual(names.filter((name) => !measured.has(name)), [], `${file} names what does not exist`);
    }
    const documented = new Set(namedMetrics().get('docs/metrics.md'));
    assert.deepEqual([...types.keys()].filter((name) => !documented.has(name)), [], 'docs/metrics.md lacks them');
    const shown = new Set(DASHBOARDS.flatMap((file) => namedMetrics().get(relative(ROOT, file))));
    const unseen = [...types.keys(), ...tls, ...hooks].filter((name) => name.startsWith('fanwire_') && !shown.has(name) && !shown.has(`${name}_bucket`));
    assert.deepEqual(unseen, [], 'on no panel');
  });

  test('Prometheus takes every question of the dashboards, and every alert', async () => {
    const questions = DASHBOARDS.flatMap((file) => JSON.parse(readFileSync(file, 'utf8')).panels)
      .flatMap(({ targets = [] }) => targets)
      .map(({ expr }) => expr.replaceAll('$job', 'fanwire').replaceAll('$instance', '.*').replaceAll('$__rate_interval', '1m'));
    assert.ok(questions.length > 60, `${questions.length}`);
    for (const question of questions) await asked(question);
    await until('its first scrapes are there', () => asked('count(fanwire_build_info) == 2'));

    const { groups } = await prometheus('rules');
    const rules = groups.flatMap(({ rules }) => rules);
    assert.ok(rules.length > 20, `${rules.length}`);
    const evaluated = async () =>
      (await prometheus('rules')).groups.flatMap(({ rules }) => rules).every(({ health }) => health === 'ok');
    await until('all rules are evaluated', evaluated);
    const loss = `FanwireNodeDown 127.0.0.1:${port(22)}`;
    await until('the loss of the node is an alert', async () => (await firing()).includes(loss), 30_000);
    assert.deepEqual(await firing(), [loss], 'and nothing else is');
  });

  test('a rolling restart loses nothing and repeats nothing', async (t) => {
    const rounds = Number(process.env.ROLLING_RESTARTS ?? 1);
    const clients = await Promise.all(Array.from({ length: 30 }, () => subscriber(t, url(), 'chat:rolling')));
    let stopped = false;
    let published = 0;
    const publishing = (async () => {
      for (; !stopped; published++) {
        await publish(port(10), published, 'chat:rolling');
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
    })();
    for (let round = 0; round < rounds; round++) {
      for (const node of NODES) {
        const restarted = await script('restart', node);
        assert.equal(restarted.code, 0, restarted.stderr);
        await until('the balancer gives it clients', async () =>
          (await metrics(port(30))).sum('haproxy_server_status', { proxy: 'nodes', server: node, state: 'UP' }),
        );
      }
    }
    stopped = true;
    await publishing;
    const all = Array.from({ length: published }, (_, n) => n);
    for (const { inbox, recovered } of clients) {
      await inbox.first((item) => item === published - 1, 'the last publication');
      assert.deepEqual(inbox.items, all);
      assert.ok(recovered.every((each) => each));
    }
    const moves = clients.map(({ recovered }) => recovered.length);
    t.diagnostic(`${published} publications, 30 clients, each moved ${Math.min(...moves)} to ${Math.max(...moves)} times`);
    assert.ok(Math.min(...moves) >= rounds, 'every node was restarted, so every client has moved');
    const drained = NODES.map((node) => drainedBy(readFileSync(join(env.CLUSTER_DIR, 'logs', `${node}.log`), 'utf8')));
    const most = Math.max(...drained.map(mostInASecond));
    t.diagnostic(`at most ${most} clients let go in a second; ${RATE} are allowed`);
    // One more, for a log line may be late.
    assert.ok(most <= RATE + 1, `${most} in a second`);
    assert.ok(drained.flat().length >= Math.min(...moves) * clients.length);

    await until('the alert is over', async () => (await firing()).length === 0, 30_000);
    assert.equal((await script('status')).code, 0);
    assert.ok((await metrics(port(22))).sum('fanwire_connections') > 0, 'a node that came back is given clients');
    assert.equal((await script('up')).code, 1, 'one cluster at a time');
  });

  test('nothing is left when it is down', async () => {
    const pids = ['redis', ...NODES, 'haproxy', 'prometheus'].map(pid);
    const down = await script('down');
    assert.equal(down.code, 0, down.stderr);
    assert.ok(!existsSync(env.CLUSTER_DIR));
    // Where nobody collects orphans, as in some containers, those that have ended stay as zombies.
    const { stdout } = await run('ps', ['-o', 'stat=', '-p', pids.join()]);
    assert.match(stdout, /^(\s*Z\S*\n)*$/);
    for (const offset of [0, 10, 30, 40, 50]) assert.ok(!(await listens(port(offset))), `port ${port(offset)}`);
  });

  /** Whether the answer of Prometheus is not empty. */
  async function asked(query) {
    return (await prometheus(`query?query=${encodeURIComponent(query)}`)).result.length > 0;
  }

  /** The alerts that fire, and of which node. */
  async function firing() {
    const { alerts } = await prometheus('alerts');
    return alerts.filter(({ state }) => state === 'firing').map(({ labels }) => `${labels.alertname} ${labels.instance}`);
  }

  async function prometheus(path) {
    const answer = await (await fetch(`http://127.0.0.1:${port(40)}/api/v1/${path}`)).json();
    assert.equal(answer.status, 'success', `${path}: ${answer.error}`);
    return answer.data;
  }
});

/** When a node that went down let a client go, in milliseconds. Fails if it had to end some of them. */
function drainedBy(log) {
  assert.doesNotMatch(log, /deadline is over|second signal/);
  const lines = log.split('\n').filter((line) => line.includes('closing connection') && line.includes('reason="shutdown"'));
  return lines.map((line) => Date.parse(line.split(' ')[0]));
}

function mostInASecond(times) {
  return Math.max(0, ...times.map((start) => times.filter((time) => time >= start && time < start + 1000).length));
}

/** The metrics that each dashboard, rule and document names, by file. */
function namedMetrics() {
  const files = [...DASHBOARDS, join(ROOT, 'deploy/prometheus/alerts.yml'), ...filesIn('docs', '.md'), join(ROOT, 'README.md')];
  return new Map(
    files.map((file) => {
      const names = readFileSync(file, 'utf8').match(/\b(?:fanwire|process)_[a-z_]+\b(?!=)/g) ?? [];
      return [relative(ROOT, file), [...new Set(names)]];
    }),
  );
}

function filesIn(folder, ending) {
  const names = readdirSync(join(ROOT, folder)).filter((name) => name.endsWith(ending));
  assert.ok(names.length > 0, folder);
  return names.map((name) => join(ROOT, folder, name));
}

async function subscriber(t, url, channel) {
  const inbox = new Inbox();
  const recovered = [];
  const client = newClient(ENCODINGS.json, url);
  t.after(() => client.disconnect());
  const subscription = client.newSubscription(channel);
  subscription.on('publication', ({ data }) => inbox.push(data));
  subscription.on('subscribed', (context) => context.wasRecovering && recovered.push(context.recovered));
  subscription.subscribe();
  client.connect();
  await within(subscription.ready(), 'the subscription');
  return { inbox, recovered };
}

/** Publishes once, however often it has to be asked for. */
async function publish(port, data, channel) {
  const body = JSON.stringify({ channel, data, idempotency_key: `${data}` });
  await until(`${data} is published`, async () => {
    const request = fetch(`http://127.0.0.1:${port}/api/publish`, { method: 'POST', headers: { 'X-API-Key': KEY }, body });
    const answer = await request.catch(() => null);
    return answer?.status === 200 && (await answer.json()).result;
  });
}

async function metrics(port) {
  const answer = await fetch(`http://127.0.0.1:${port}/metrics`);
  return new Metrics(await answer.text());
}

function listens(port) {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.on('connect', () => (socket.destroy(), resolve(true)));
    socket.on('error', () => resolve(false));
  });
}
