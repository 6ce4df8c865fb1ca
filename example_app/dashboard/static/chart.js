// @ts-check
/** Draws a chart over time into an SVG element of the page: lines, and the areas below them. */

/** Milliseconds between two points from which on the line has a gap. */
const GAP = 3500;

/** Milliseconds that a chart shows at least. With more points, it shows more, up to its window. */
const SHORTEST = 60_000;

const UNITS = ["B", "kB", "MB", "GB", "TB"];

/** Returns a number of bytes as text with a unit. @param {number} number */
export function bytes(number) {
  let size = number;
  let unit = 0;
  while (size >= 1000 && unit < UNITS.length - 1) {
    size /= 1000;
    unit += 1;
  }
  return `${unit && size < 100 ? size.toFixed(1) : Math.round(size)} ${UNITS[unit]}`;
}

export class Chart {
  #svg;
  #window;
  /** @type {number[][]} */
  #points = []; // [milliseconds, ...values], oldest first
  #planned = false;
  #labels;

  /**
   * @param {SVGSVGElement} svg Has `data-window` in seconds and `data-unit`.
   * @param {{most: HTMLElement, from: HTMLElement}} labels Show the upper bound, and the time at the left edge.
   */
  constructor(svg, labels) {
    this.#svg = svg;
    this.#window = Number(svg.dataset.window) * 1000;
    this.#labels = labels;
  }

  get size() {
    return this.#points.length;
  }

  /**
   * Adds a point and removes points older than the window. Draws once for all points that are added together.
   * @param {number} at @param {number[]} values
   */
  add(at, ...values) {
    this.#points.push([at, ...values]);
    const last = this.#points.findIndex(([then]) => then > at - this.#window);
    this.#points.splice(0, last);
    if (this.#planned) return;
    this.#planned = true;
    requestAnimationFrame(() => {
      this.#planned = false;
      this.#draw();
    });
  }

  #draw() {
    const percent = this.#svg.dataset.unit === "percent";
    const most = percent ? 100 : roundUp(Math.max(...this.#points.flatMap(([, ...values]) => values)));
    const end = this.#points[this.#points.length - 1][0];
    const span = Math.min(this.#window, Math.max(SHORTEST, end - this.#points[0][0]));
    this.#labels.most.textContent = percent ? "100 %" : `${bytes(most)}/s`;
    this.#labels.from.textContent = ago(span);
    const x = (/** @type {number} */ at) => (((at - end) / span + 1) * this.#svg.viewBox.baseVal.width).toFixed(2);
    const y = (/** @type {number} */ value) => (100 - (100 * Math.min(value, most)) / most).toFixed(2);
    for (const path of /** @type {NodeListOf<SVGElement>} */ (this.#svg.querySelectorAll("[data-series]"))) {
      const pieces = this.#unbroken().map((points) =>
        points.map((point) => `${x(point[0])} ${y(point[Number(path.dataset.series)])}`),
      );
      const below = (/** @type {string[]} */ points) => {
        const [first, last] = [points[0], points[points.length - 1]].map((point) => point.split(" ")[0]);
        return path.matches(".area") ? `L${last} 100L${first} 100Z` : "";
      };
      path.setAttribute("d", pieces.map((points) => `M${points.join("L")}${below(points)}`).join(""));
    }
  }

  /** Returns the points, split at the gaps. */
  #unbroken() {
    /** @type {number[][][]} */
    const pieces = [];
    let before = -Infinity;
    for (const point of this.#points) {
      if (point[0] - before > GAP) pieces.push([]);
      pieces[pieces.length - 1].push(point);
      before = point[0];
    }
    return pieces;
  }
}

/** @param {number} span Milliseconds. */
function ago(span) {
  return span < 120_000 ? `${Math.round(span / 1000)} s ago` : `${Math.round(span / 60_000)} min ago`;
}

/**
 * Returns the next round number as a bound: 1, 2 or 5 times a power of ten, at least 1000.
 * @param {number} number
 */
function roundUp(number) {
  const power = 10 ** Math.floor(Math.log10(Math.max(number, 1000)));
  return ([1, 2, 5].find((times) => times * power >= number) ?? 10) * power;
}
