// A line over the last minutes, in SVG.

const SVG = 'http://www.w3.org/2000/svg';
const TOP = 14; // room for the label of the upper line
const BOTTOM = 16; // room for the times

/**
 * Draws `points`, each `{ at, values }` with a time in milliseconds and a value per line (or undefined), into an element.
 *
 * `spans` are the shortest and the longest time shown, `gap` is the longest time between two points that belong together, all
 * in milliseconds; `format` writes a value, in units that are `step` apart. `onlook` is told the point under the pointer, or null.
 */
export class Chart {
  #points = [];
  #looked = null;

  constructor(element, { name, spans, gap, format, step = 1000, onlook }) {
    Object.assign(this, { element, name, spans, gap, format, step, onlook });
    this.svg = element.appendChild(create('svg', { role: 'img' }));
    new ResizeObserver(() => this.#render()).observe(element);
    element.addEventListener('pointermove', (event) => this.#look(event.clientX - element.getBoundingClientRect().left));
    element.addEventListener('pointerleave', () => this.#look(null));
  }

  draw(points) {
    this.#points = points;
    if (this.#looked && !points.includes(this.#looked)) this.#look(null);
    this.#render();
  }

  #look(x) {
    const distance = (point) => Math.abs(this.#x(point.at) - x);
    const nearest = (a, b) => (distance(b) < distance(a) ? b : a);
    this.#looked = x === null || !this.#points.length ? null : this.#points.reduce(nearest);
    this.onlook(this.#looked);
    this.#render();
  }

  get #width() {
    return this.element.clientWidth;
  }

  get #span() {
    const [shortest, longest] = this.spans;
    const seen = this.#points.length ? this.#points.at(-1).at - this.#points[0].at : 0;
    return Math.min(Math.max(seen, shortest), longest);
  }

  #x(at) {
    const now = this.#points.at(-1)?.at ?? 0;
    return this.#width * (1 - (now - at) / this.#span);
  }

  #render() {
    const { clientWidth: width, clientHeight: height } = this.element;
    const points = this.#points;
    const all = points.flatMap(({ values }) => values).filter((value) => value !== undefined);
    const top = ceiling(Math.max(...all, 0), this.step);
    const y = (value) => height - BOTTOM - (value / top) * (height - TOP - BOTTOM);
    const base = y(0);
    const parts = [];
    for (const value of [0, top / 2, top]) parts.push(create('line', { class: 'grid', x1: 0, x2: width, y1: y(value), y2: y(value) }));
    if (all.some((value) => value > 0)) parts.push(label(0, y(top) - 4, this.format(top)));
    parts.push(label(0, height - 3, ago(this.#span)), label(width, height - 3, 'now', 'end'));
    const lines = points[0]?.values.length ?? 0;
    for (let line = lines - 1; line >= 0; line -= 1) {
      for (const run of runs(points, line, this.gap)) {
        const path = run.map(({ at, values }) => `${round(this.#x(at))} ${round(y(values[line]))}`).join('L');
        const [first, last] = [round(this.#x(run[0].at)), round(this.#x(run.at(-1).at))];
        if (line === 0) parts.push(create('path', { class: 'area', d: `M${first} ${base}L${path}L${last} ${base}Z` }));
        parts.push(create('path', { class: line === 0 ? 'line' : 'line second', d: `M${path}` }));
      }
    }
    const marked = this.#looked ?? points.at(-1);
    if (this.#looked) parts.push(create('line', { class: 'cursor', x1: this.#x(marked.at), x2: this.#x(marked.at), y1: TOP, y2: base }));
    if (marked?.values[0] !== undefined) parts.push(create('circle', { class: 'dot', r: 4, cx: this.#x(marked.at), cy: y(marked.values[0]) }));
    this.svg.setAttribute('viewBox', `0 0 ${width || 1} ${height || 1}`);
    const [latest] = points.at(-1)?.values ?? [];
    this.svg.setAttribute('aria-label', latest === undefined ? `${this.name}: nothing yet` : `${this.name}: ${this.format(latest)} now, at most ${this.format(Math.max(...all))}`);
    this.svg.replaceChildren(...parts);
  }
}

/** Points in a row that have a value for a line. */
function runs(points, line, gap) {
  const found = [];
  let before;
  for (const point of points) {
    if (point.values[line] === undefined) before = undefined;
    else {
      if (before === undefined || point.at - before > gap) found.push([]);
      found.at(-1).push(point);
      before = point.at;
    }
  }
  return found;
}

/** The next of 1, 2, 5, 10, 20, 50, … of a unit; units are `step` apart. */
function ceiling(value, step) {
  if (value <= 0) return 1;
  const unit = step ** Math.max(0, Math.floor(Math.log(value) / Math.log(step)));
  const power = 10 ** Math.floor(Math.log10(value / unit));
  return unit * [1, 2, 5, 10].map((times) => times * power).find((times) => times >= (value / unit) * 0.999);
}

function ago(milliseconds) {
  const seconds = Math.round(milliseconds / 1000);
  return seconds < 120 ? `${seconds} s ago` : `${Math.round(seconds / 60)} min ago`;
}

function label(x, y, text, anchor = 'start') {
  return create('text', { x, y, 'text-anchor': anchor }, text);
}

function create(tag, attributes, text = '') {
  const element = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  return element;
}

const round = (number) => Math.round(number * 10) / 10;
