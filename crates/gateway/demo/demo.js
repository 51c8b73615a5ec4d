/** The demo page: a chat in the channel `chat:lobby`, and what happens underneath it. */

import { Fanwire } from './fanwire.js';

const URL_OF_CLIENTS = `${location.origin.replace(/^http/, 'ws')}/connection/websocket`;
const KEPT = 300; // messages and frames on the page
const $ = (id) => document.getElementById(id);

const fanwire = new Fanwire(URL_OF_CLIENTS);

// ── Who I am ────────────────────────────────────────────────────────────────────────────────────────────────────────
// The browser remembers the last name; a tab keeps its own, so that two tabs can talk to each other.

const me = {
  name: sessionStorage.getItem('name') ?? localStorage.getItem('name') ?? someName(),
  hue: Number(sessionStorage.getItem('hue') ?? Math.floor(Math.random() * 360)),
  settled: sessionStorage.getItem('name') !== null, // else a name taken by another tab is given up
};
rename(me.name);

$('name').addEventListener('change', () => {
  me.settled = true;
  rename($('name').value.trim() || me.name);
  localStorage.setItem('name', me.name);
  announce();
});

$('colour').addEventListener('click', () => {
  me.hue = (me.hue + 47) % 360;
  rename(me.name);
  announce();
});

function rename(name) {
  me.name = name;
  $('name').value = name;
  $('colour').style.setProperty('--hue', me.hue);
  sessionStorage.setItem('name', name);
  sessionStorage.setItem('hue', me.hue);
}

function someName() {
  const pick = (words) => words.split(' ')[Math.floor(Math.random() * 12)];
  const kind = pick('amber brisk calm dapper early fond gentle humble lucky merry nimble quiet');
  return `${kind} ${pick('badger crane dormouse finch gecko heron ibis lynx marten otter puffin wren')}`;
}

// ── Who is here ─────────────────────────────────────────────────────────────────────────────────────────────────────
// Presence tells which connections are in the lobby. Without tokens it cannot tell their names, so everybody publishes
// theirs in a second channel; its history introduces those who came earlier.

const known = new Map(); // connection id → { name, hue }, as published
const people = new Map(); // connection id → its entry on the page
let announced = 0;

const names = fanwire.subscribe('chat:names', {
  since: { epoch: '', offset: 0 },
  publication({ data, info }) {
    if (!info?.client) return; // Not from a client: it would introduce nobody.
    known.set(info.client, { name: asName(data?.name), hue: asHue(data?.hue) });
    if (known.size > KEPT) known.delete(known.keys().next().value);
    if (people.has(info.client)) showPerson(info.client);
  },
});

async function announce() {
  announced = Date.now();
  await names.publish({ name: me.name, hue: me.hue }).catch(() => {}); // Not connected: the next connection announces.
}

async function meetPeople() {
  const present = await lobby.presence();
  people.forEach((entry) => entry.remove());
  people.clear();
  for (const client of Object.keys(present)) showPerson(client);
  showCount();

  const others = Object.keys(present).filter((client) => client !== fanwire.session?.client);
  const taken = others.some((client) => known.get(client)?.name === me.name);
  if (taken && !me.settled) rename(someName());
  me.settled = true;
  announce();
}

function showPerson(client) {
  let entry = people.get(client);
  if (!entry) {
    entry = $('people').appendChild(element('li'));
    people.set(client, entry);
  }
  const { name, hue } = known.get(client) ?? { name: stranger(client) };
  const isMe = client === fanwire.session?.client;
  entry.className = isMe ? 'me' : hue === undefined ? 'unknown' : '';
  entry.style.setProperty('--hue', hue ?? 0);
  entry.textContent = isMe ? `${name} (you)` : name;
  entry.title = `connection ${client}`;
}

function personLeft(client) {
  const entry = people.get(client);
  people.delete(client);
  entry?.classList.add('gone');
  setTimeout(() => entry?.remove(), 1500);
  showCount();
}

function showCount() {
  $('here').textContent = `${people.size} here`;
}

const stranger = (client) => `someone ${client.slice(0, 4)}`;
const asName = (name) => (typeof name === 'string' && name.trim() ? name.trim().slice(0, 40) : 'nameless');
const asHue = (hue) => (Number.isFinite(hue) ? hue : 0);

// ── The lobby ───────────────────────────────────────────────────────────────────────────────────────────────────────

const seen = new Set(); // epoch/offset of the messages on the page: history may overlap with what was pushed
let behind = null; // messages that arrived while history was read: they are newer
let awaySince = 0;

const lobby = fanwire.subscribe('chat:lobby', {
  subscribed({ recovering, recovered, publications }) {
    const away = `Back after ${Math.max(1, Math.round((Date.now() - awaySince) / 1000))} s`;
    if (recovering && recovered) {
      const count = publications.length;
      note(`${away}: ${count || 'no'} missed message${count === 1 ? '' : 's'}${count ? ' recovered' : ''}`, 'good');
    } else if (recovering) {
      note(`${away}, but the gap could not be filled (recovered: false). Messages may be missing here.`, 'bad');
    }
    meetPeople().catch(() => {}); // Lost the connection meanwhile: asked again after the next.
    if (!recovered) readHistory();
  },
  publication(publication, how) {
    if (behind) behind.push([publication, how]);
    else showMessage(publication, how);
    clock(publication);
    beat();
  },
  join({ client }) {
    showPerson(client);
    showCount();
    // History forgets names after five minutes: who comes later has to be told again.
    if (announced && Date.now() - announced > 240_000) announce();
  },
  leave: ({ client }) => personLeft(client),
  failed: ({ code, message }) => note(`The lobby is closed to us: ${message} (${code})`, 'bad'),
});

async function readHistory() {
  behind = [];
  const latest = await lobby.history({ limit: 30, reverse: true }).catch(() => []); // Not connected: read after the next.
  for (const publication of latest.reverse()) showMessage(publication, { recovered: false, old: true });
  const newer = behind;
  behind = null;
  for (const [publication, how] of newer) showMessage(publication, how);
}

function showMessage({ data, info, offset, time }, { recovered, old = false }) {
  const key = `${lobby.position?.epoch}/${offset}`;
  if (offset && seen.has(key)) return;
  seen.add(key);
  if (seen.size > 2 * KEPT) seen.delete(seen.values().next().value);
  $('log').querySelector('.empty')?.remove();

  const isText = typeof data?.text === 'string';
  const author = info?.client ?? 'backend';
  const item = element('li', { className: recovered ? 'message recovered' : 'message' });
  const name = isText && data.name !== undefined ? asName(data.name) : info ? stranger(author) : 'backend';
  item.dataset.author = `${author} ${name}`;
  if ($('log').lastElementChild?.dataset.author !== item.dataset.author) {
    const by = element('span', { className: data?.hue === undefined ? 'by unknown' : 'by', textContent: name });
    by.style.setProperty('--hue', asHue(data?.hue));
    item.append(by);
    if (!info) item.append(element('span', { className: 'via', textContent: 'through the API' }));
  }
  item.append(
    isText
      ? element('div', { className: 'text', textContent: data.text })
      : element('pre', { textContent: JSON.stringify(data, null, 2) }),
  );
  if (time || !(old || recovered)) item.append(element('time', { textContent: clockTime(time || Date.now()).slice(0, 5) }));
  append($('log'), item);
}

function note(text, className = '') {
  append($('log'), element('li', { className: `note ${className}`, textContent: text }));
}

$('composer').addEventListener('submit', async (event) => {
  event.preventDefault();
  const text = $('text').value.trim();
  if (!text) return;
  const number = ++sent;
  flying.set(number, performance.now());
  try {
    const published = lobby.publish({ text, name: me.name, hue: me.hue, number });
    $('text').value = '';
    await published;
    $('hint').textContent = '';
  } catch (error) {
    flying.delete(number);
    $('text').value ||= text;
    $('hint').textContent = `Not sent: ${error.message}`;
  }
});

// ── How long it took ────────────────────────────────────────────────────────────────────────────────────────────────

const flying = new Map(); // number of a message of ours → when it was published
const times = [];
let sent = 0;

function clock({ data, info }) {
  if (info?.client !== fanwire.session?.client || !flying.has(data?.number)) return;
  times.push(performance.now() - flying.get(data.number));
  flying.delete(data.number);
  if (times.length > 50) times.shift();
  const median = times.toSorted((a, b) => a - b)[Math.floor(times.length / 2)];
  $('latency-last').textContent = `${times.at(-1).toFixed(1)} ms`;
  $('latency-median').textContent = times.length > 2 ? `· median ${median.toFixed(1)}` : '';
}

function beat() {
  $('mark').classList.remove('beat');
  void $('mark').getBoundingClientRect(); // Between the two, the animation is over; without this it would not restart.
  $('mark').classList.add('beat');
}

// ── The connection ──────────────────────────────────────────────────────────────────────────────────────────────────

let wasConnected = false;

fanwire.onstate = (state, { code, reason, delay }) => {
  const { node, version, client } = fanwire.session ?? {};
  const unplugged = state === 'disconnected' && code === undefined;
  if (wasConnected && state !== 'connected') {
    awaySince = Date.now();
    flying.clear();
  }
  wasConnected = state === 'connected';
  $('state').dataset.state = state;
  $('state-text').textContent = unplugged ? 'unplugged' : delay === undefined ? state : 'reconnecting';
  $('state-detail').textContent =
    state === 'connected' ? node ? `node ${node.slice(0, 8)}` : version
    : delay !== undefined ? `in ${(delay / 1000).toFixed(1)} s (${code}${reason && ` ${reason}`})`
    : code !== undefined ? `for good: ${code} ${reason}`
    : '';
  $('state-client').textContent = client ? `client ${client.slice(0, 8)}` : '';
  $('unplug').textContent = state === 'disconnected' ? 'Plug back in' : 'Pull the plug';
  $('unplug').classList.toggle('out', state === 'disconnected');
  $('drop').disabled = state !== 'connected';
  $('away').hidden = !unplugged;
  $('hint').textContent = '';
};

$('unplug').addEventListener('click', () => {
  if (fanwire.state === 'disconnected') fanwire.connect();
  else fanwire.disconnect();
});

$('drop').addEventListener('click', () => fanwire.drop());

/** Somebody with a connection of their own, for those who try this alone. */
$('stranger').addEventListener('click', () => {
  const other = new Fanwire(URL_OF_CLIENTS);
  other.onstate = async (state) => {
    if (state !== 'connected') return;
    for (const text of ['Hello? Anybody here?', 'Somebody must have pulled a plug.', 'Never mind: it will all be in the history.']) {
      await other.call({ publish: { channel: 'chat:lobby', data: { text, name: 'a stranger', hue: 320 } } });
    }
    other.disconnect();
  };
  other.connect();
});

// ── The raw frames ──────────────────────────────────────────────────────────────────────────────────────────────────

const counts = { in: 0, out: 0 };
let held = null; // frames that came while paused

fanwire.onframe = (direction, text) => {
  $(`frames-${direction}`).textContent = ++counts[direction];
  const frame = { direction, text, at: Date.now() };
  if (!held) return append($('wire'), frameEntry(frame));
  held.push(frame);
  if (held.length > KEPT) held.shift();
  $('pause').textContent = `Resume (${held.length})`;
};

$('pause').addEventListener('click', () => {
  const waiting = held ?? [];
  held = held ? null : [];
  $('pause').textContent = held ? 'Resume' : 'Pause';
  $('pause').setAttribute('aria-pressed', held !== null);
  for (const frame of waiting) append($('wire'), frameEntry(frame));
});

$('clear').addEventListener('click', () => {
  $('wire').replaceChildren();
  if (held) held = [];
});

function frameEntry({ direction, text, at }) {
  const messages = text.split('\n').filter((line) => line.trim()).map((line) => JSON.parse(line));
  const kind = messages.map((message) => kindOf(message, direction)).join(' + ');
  const head = element('button', { type: 'button' });
  head.setAttribute('aria-expanded', false);
  head.append(
    element('time', { textContent: clockTime(at) }),
    element('span', { className: direction, textContent: direction === 'in' ? '↓' : '↑', ariaLabel: direction, role: 'img' }),
    element('span', { className: `kind ${direction}`, textContent: kind }),
    element('code', { textContent: text.slice(0, 500) }),
  );
  const item = element('li');
  item.append(head);
  head.addEventListener('click', () => {
    const open = item.querySelector('pre');
    head.setAttribute('aria-expanded', !open);
    if (open) open.remove();
    else item.append(pretty(messages));
    item.scrollIntoView({ block: 'nearest' });
    noteScroll($('wire'));
  });
  return item;
}

function kindOf({ id, push, error, ...rest }, direction) {
  if (push) return `${Object.keys(push).find((key) => key !== 'channel')} ${push.channel ?? ''}`;
  if (id) return `${error ? 'error' : Object.keys(rest)[0]} #${id}`;
  return direction === 'in' ? 'ping' : 'pong';
}

/** JSON with indentation and colours. */
function pretty(messages) {
  const pre = element('pre');
  const text = messages.map((message) => JSON.stringify(message, null, 2)).join('\n').slice(0, 20_000);
  let end = 0;
  for (const { 0: token, 1: string, 2: colon, index } of text.matchAll(/("(?:[^"\\]|\\.)*")(:)?|\b(?:true|false|null)\b|-?\d[\d.eE+-]*/g)) {
    pre.append(text.slice(end, index));
    pre.append(element('span', { className: colon ? 'key' : string ? 'string' : 'number', textContent: token }));
    end = index + token.length;
  }
  pre.append(text.slice(end));
  return pre;
}

// ── From a backend ──────────────────────────────────────────────────────────────────────────────────────────────────

const control = document.querySelector('meta[name="fanwire-control"]').content;
$('command').textContent = [
  `curl -X POST ${control.startsWith('http') ? control : `http://${control}`}/api/publish`,
  `-H 'Content-Type: application/json'`,
  `-d '{"channel":"chat:lobby","data":{"text":"hello from curl"}}'`,
].join(' \\\n  ');

$('copy').addEventListener('click', async () => {
  try {
    await navigator.clipboard.writeText($('command').textContent);
    $('copied').textContent = 'Copied: paste it into a terminal.';
  } catch {
    getSelection().selectAllChildren($('command'));
    $('copied').textContent = 'Selected: copy it with the keyboard.';
  }
});

// ── The page ────────────────────────────────────────────────────────────────────────────────────────────────────────

for (const button of document.querySelectorAll('nav button')) {
  button.addEventListener('click', () => {
    document.body.dataset.view = button.dataset.show;
    for (const other of document.querySelectorAll('nav button')) other.setAttribute('aria-pressed', other === button);
  });
}

const lookedUp = new Set(); // lists whose end is out of view because the reader wants it so

/** Appends to a list of bounded length. */
function append(list, item) {
  list.append(item);
  if (list.children.length > KEPT) list.firstElementChild.remove();
  showEnd(list);
}

/** Keeps the end of a list in view, unless the reader is looking at something further up. */
function showEnd(list) {
  if (!lookedUp.has(list)) list.scrollTop = list.scrollHeight;
}

function noteScroll(list) {
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  if (atEnd) lookedUp.delete(list);
  else lookedUp.add(list);
}

for (const list of [$('log'), $('wire')]) {
  list.addEventListener('scroll', () => noteScroll(list));
  new ResizeObserver(() => showEnd(list)).observe(list);
}

function element(tag, properties = {}) {
  return Object.assign(document.createElement(tag), properties);
}

function clockTime(milliseconds) {
  const date = new Date(milliseconds);
  const pad = (number, width = 2) => String(number).padStart(width, '0');
  return `${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}.${pad(date.getMilliseconds(), 3)}`;
}

fanwire.connect();
