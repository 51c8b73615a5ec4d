// The dashboard: asks the node it came from every two seconds what all nodes do.

import { Chart } from './chart.js';

const PERIOD = 2_000;
const SPANS = [60_000, 300_000];
const PATIENCE = 5_000;

const $ = (selector) => document.querySelector(selector);

// ── Figures ─────────────────────────────────────────────────────────────────────────────────────────────────────────
// Each is one number for all nodes, its history, and what else to know about it.

const count = (number) => (number < 100_000 ? Math.round(number).toLocaleString('en') : scaled(number, 1000, ['', ' k', ' M', ' G', ' T']));
const rate = (number) => (number > 0 && number < 10 ? number.toFixed(1) : count(number));
const bytes = (number) => scaled(number, 1024, [' B', ' KiB', ' MiB', ' GiB', ' TiB']);
const time = (micros) => scaled(micros, 1000, [' µs', ' ms', ' s']);

const figures = [
  {
    id: 'connections',
    name: 'Connections',
    format: count,
    values: (all) => [sum(all, 'clients')],
    detail: (all) => `${count(sum(all, 'subscriptions'))} subscriptions`,
  },
  {
    id: 'deliveries',
    name: 'Deliveries per second',
    format: rate,
    values: (all) => [sum(all, 'deliveriesRate')],
    detail: (all) => `${rate(sum(all, 'publicationsRate') ?? 0)} published/s · ${bytes(sum(all, 'bytesRate') ?? 0)}/s`,
  },
  {
    id: 'latency',
    name: 'Latency inside the slowest node, 99 of 100 deliveries',
    format: time,
    values: (all) => ['p99_us', 'median_us'].map((key) => most(all, key) || undefined),
    detail: (_, [, median]) => (median ? `99 of 100 within · half: ${time(median)} (dashed)` : 'nothing is delivered'),
    none: 'idle',
  },
  {
    id: 'waiting',
    name: 'Bytes that wait for full sockets',
    format: bytes,
    step: 1024,
    values: (all) => [sum(all, 'waiting_bytes')],
    detail: () => '',
  },
].map((figure) => {
  const element = document.getElementById(figure.id);
  const [value, detail] = ['.value', '.detail'].map((part) => element.querySelector(part));
  const points = [];
  let looked = null; // the point under the pointer
  const show = () => {
    const point = looked ?? points.at(-1);
    value.textContent = point?.values[0] === undefined ? (figure.none ?? '–') : figure.format(point.values[0]);
    detail.textContent = looked ? `${Math.round((points.at(-1).at - looked.at) / 1000)} s ago` : (point?.detail ?? '');
  };
  const onlook = (point) => {
    looked = point;
    show();
  };
  const chart = new Chart(element.querySelector('.chart'), { ...figure, spans: SPANS, gap: 2 * PATIENCE, onlook });
  return (at, all) => {
    const values = figure.values(all);
    points.push({ at, values, detail: figure.detail(all, values) });
    while (points[0].at < at - SPANS[1]) points.shift();
    chart.draw(points);
    show();
  };
});

function sum(all, key) {
  const known = all.map((node) => node[key]).filter((value) => value !== undefined);
  return known.length ? known.reduce((a, b) => a + b) : undefined;
}

const most = (all, key) => Math.max(...all.map((node) => node[key]));

// ── Rates ───────────────────────────────────────────────────────────────────────────────────────────────────────────
// Nodes tell totals; those of the other nodes are some seconds old, and come again until there are newer ones.

const RATES = { deliveriesRate: 'deliveries', publicationsRate: 'publications', bytesRate: 'delivered_bytes' };
const earlier = new Map(); // node id → { at, node, rates }: its last totals, and the rates up to them

function withRates(node, now) {
  const at = now - node.age_ms;
  const last = earlier.get(node.id);
  let rates = last?.rates ?? {};
  if (!last || at - last.at > 500) {
    const seconds = last && (at - last.at) / 1000;
    rates = last ? Object.fromEntries(Object.entries(RATES).map(([rate, total]) => [rate, Math.max(0, node[total] - last.node[total]) / seconds])) : {};
    earlier.set(node.id, { at, node, rates });
  }
  return { ...node, ...rates };
}

// ── Tables ──────────────────────────────────────────────────────────────────────────────────────────────────────────

function showNodes(nodes) {
  const row = (node, index) => [
    { text: node.name, title: node.id, className: index === 0 ? 'name own' : 'name' },
    { text: node.state, state: node.state },
    { text: count(node.clients), share: node.clients / (most(nodes, 'clients') || 1) },
    { text: count(node.subscriptions) },
    { text: node.deliveriesRate === undefined ? '–' : rate(node.deliveriesRate) },
    { text: node.p99_us ? time(node.median_us) : 'idle' },
    { text: node.p99_us ? time(node.p99_us) : 'idle' },
    { text: bytes(node.waiting_bytes) },
    { text: age(node.uptime_ms) },
    { text: node.version, className: 'version' },
  ];
  fill('#nodes', nodes.map(row));
}

function showChannels(channels) {
  const hottest = channels[0]?.deliveries_per_second;
  const row = (channel) => [
    { text: channel.channel, title: channel.channel, className: 'name' },
    { text: count(channel.subscribers) },
    { text: rate(channel.publications_per_second) },
    { text: rate(channel.deliveries_per_second), share: channel.deliveries_per_second / hottest },
  ];
  fill('#channels', channels.map(row));
}

function showClients(clients, nodes) {
  const names = new Map(nodes.map((node) => [node.id, node.name]));
  const slowest = clients[0]?.waiting_bytes;
  const row = (client) => [
    { text: client.client, title: `${client.client} (${client.protocol})`, className: 'name' },
    { text: client.user || 'anonymous', title: client.user, className: 'name' },
    { text: names.get(client.node) ?? client.node, className: 'version' },
    { text: bytes(client.waiting_bytes), share: client.waiting_bytes / slowest },
  ];
  fill('#clients', clients.map(row));
}

/** Replaces the rows of a table. Cells are numbers unless they say otherwise. */
function fill(table, rows) {
  const cell = ({ text, title = '', className = 'number', state, share }) => {
    const td = Object.assign(document.createElement('td'), { textContent: text, title, className: state ? '' : className });
    if (state) {
      td.className = 'state';
      td.dataset.state = state;
    }
    if (share !== undefined) {
      td.classList.add('bar');
      td.style.setProperty('--share', `${Math.round(100 * share)}%`);
    }
    return td;
  };
  const tr = (cells) => {
    const row = document.createElement('tr');
    row.append(...cells.map(cell));
    return row;
  };
  $(`${table} tbody`).replaceChildren(...rows.map(tr));
  const empty = $(table).parentElement.querySelector('.empty');
  if (empty) [empty.hidden, $(table).hidden] = [rows.length > 0, rows.length === 0];
}

// ── The whole ───────────────────────────────────────────────────────────────────────────────────────────────────────

function showState({ nodes, redis, missing }) {
  const silent = missing.silent.length;
  const [state, text] =
    redis?.up === false ? ['bad', 'Redis carries nothing']
    : missing.unasked && redis ? ['bad', 'other nodes cannot be asked']
    : silent ? ['bad', `${silent} of ${nodes.length} nodes ${silent === 1 ? 'does' : 'do'} not answer`]
    : nodes.some((node) => node.state === 'draining') ? ['warn', 'a node is draining']
    : nodes.length === 1 ? ['good', '1 node']
    : ['good', `${nodes.length} nodes`];
  $('#state').dataset.state = state;
  // Told to screen readers: only when it changes.
  if ($('#state').textContent !== text) $('#state').textContent = text;
  $('#seen-from').textContent = `seen from ${nodes[0].name}`;
  document.body.classList.remove('stale');
}

let answered;

async function ask() {
  try {
    const answer = await fetch('/status.json', { signal: AbortSignal.timeout(PATIENCE) });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    const status = await answer.json();
    answered = Date.now();
    const [own, ...others] = status.nodes.map((node) => withRates(node, answered));
    const nodes = [own, ...others.toSorted((a, b) => a.name.localeCompare(b.name))];
    for (const id of earlier.keys()) if (!nodes.some((node) => node.id === id)) earlier.delete(id);
    figures.forEach((add) => add(answered, nodes));
    showNodes(nodes);
    showChannels(status.channels);
    showClients(status.clients, nodes);
    showState(status);
  } catch {
    $('#state').dataset.state = 'bad';
    $('#state').textContent = answered ? `no answer since ${new Date(answered).toLocaleTimeString()}` : 'no answer';
    document.body.classList.add('stale');
  }
}

/** Nobody looks: nobody asks. */
async function watch() {
  if (!document.hidden) await ask();
  setTimeout(watch, PERIOD);
}

function age(milliseconds) {
  const minutes = milliseconds / 60_000;
  return minutes < 2 ? `${Math.round(minutes * 60)} s` : minutes < 120 ? `${Math.round(minutes)} min` : minutes < 2880 ? `${Math.round(minutes / 60)} h` : `${Math.round(minutes / 1440)} d`;
}

function scaled(number, step, units) {
  let unit = 0;
  while (Math.abs(number) >= step * 0.9995 && unit < units.length - 1) {
    number /= step;
    unit += 1;
  }
  return `${number < 10 && number % 1 ? number.toFixed(1) : Math.round(number)}${units[unit]}`;
}

watch();
