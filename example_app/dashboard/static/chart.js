/** A chart over time in an SVG of the page: lines with the area below them. */

/** Ms between two points that still belong to one line. */
const GAP = 3500;

/** Ms that a chart shows at least; it grows with what there is up to its window. */
const SHORTEST = 60_000;

const UNITS = ["B", "kB", "MB", "GB", "TB"];

/** A number of bytes, to read. */
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
  #points = []; // [ms, ...values], oldest first
  #planned = false;
  #labels;

  /**
   * @param {SVGElement} svg With `data-window` in seconds and `data-unit`.
   * @param {{most: HTMLElement, from: HTMLElement}} labels For the upper bound, and for when it begins.
   */
  constructor(svg, labels) {
    this.#svg = svg;
    this.#window = svg.dataset.window * 1000;
    this.#labels = labels;
  }

  get size() {
    return this.#points.length;
  }

  /** Adds a point; what has left the window goes. All points that come at once are drawn at once. */
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
    const end = this.#points.at(-1)[0];
    const span = Math.min(this.#window, Math.max(SHORTEST, end - this.#points[0][0]));
    this.#labels.most.textContent = percent ? "100 %" : `${bytes(most)}/s`;
    this.#labels.from.textContent = ago(span);
    const x = (at) => (((at - end) / span + 1) * this.#svg.viewBox.baseVal.width).toFixed(2);
    const y = (value) => (100 - (100 * Math.min(value, most)) / most).toFixed(2);
    for (const path of this.#svg.querySelectorAll("[data-series]")) {
      const pieces = this.#unbroken().map((points) =>
        points.map((point) => `${x(point[0])} ${y(point[path.dataset.series])}`),
      );
      const below = (points) => (path.matches(".area") ? `L${points.at(-1).split(" ")[0]} 100L${points[0].split(" ")[0]} 100Z` : "");
      path.setAttribute("d", pieces.map((points) => `M${points.join("L")}${below(points)}`).join(""));
    }
  }

  /** The points in pieces without gaps. */
  #unbroken() {
    const pieces = [];
    let before = -Infinity;
    for (const point of this.#points) {
      if (point[0] - before > GAP) pieces.push([]);
      pieces.at(-1).push(point);
      before = point[0];
    }
    return pieces;
  }
}

function ago(span) {
  return span < 120_000 ? `${Math.round(span / 1000)} s ago` : `${Math.round(span / 60_000)} min ago`;
}

/** The next bound that reads well: 1, 2 or 5 times a power of ten, at least 1000. */
function roundUp(number) {
  const power = 10 ** Math.floor(Math.log10(Math.max(number, 1000)));
  return [1, 2, 5, 10].find((times) => times * power >= number) * power;
}
