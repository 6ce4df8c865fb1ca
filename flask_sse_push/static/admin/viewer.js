// @ts-check
/**
 * Shows the view that the page's address names, and reads its data again while it is shown.
 * @import { Child } from "./elements.js"
 * @import { Server } from "./server.js"
 * @import { Workers } from "./workers.js"
 */

import { parse } from "./address.js";
import { make } from "./elements.js";
import { patch } from "./patch.js";
import { Failure } from "./server.js";

/**
 * @typedef View
 * @property {(query: URLSearchParams) => string} title
 * @property {(query: URLSearchParams) => Child[]} [form] Shown at once, above the data.
 * @property {(server: Server, query: URLSearchParams, signal: AbortSignal, workers: Workers) => Promise<any>} load Returns the
 *   data.
 * @property {(data: any, about: About) => Child[]} body Shows the data.
 * @property {(query: URLSearchParams) => number} every After how many seconds the data is read again; 0: never.
 * @property {boolean} [isLive] Whether the view shows the reports of workers.
 */

/** @typedef {{ query: URLSearchParams, now: number, workers: Workers }} About What a view needs besides its data. */

/**
 * @typedef {{ name: string, query: URLSearchParams, data: any, isOld: boolean, readAt: Date | null }} Shown `isOld`:
 *   whether the data belongs to the previous address.
 */

/**
 * @typedef Frame What is around a view.
 * @property {HTMLElement} heading
 * @property {HTMLElement} place Where the view is shown.
 * @property {(failure: Failure | null, since: Date | null) => void} tell Gets a failure to read the data, and when the
 *   data that is still shown was read. Gets null after a success.
 * @property {(summary: string) => void} say Gets one sentence about a new view, for screen readers.
 */

/** The part of the page below the navigation. */
export class Viewer {
  #server;
  #workers;
  #views;
  #frame;
  #place;
  /** @type {Shown} */ #shown = { name: "", query: new URLSearchParams(), data: null, isOld: false, readAt: null };
  #request = new AbortController();
  #timer = 0;

  /**
   * @param {Server} server @param {Workers} workers @param {Record<string, View>} views By the names in addresses.
   * @param {Frame} frame
   */
  constructor(server, workers, views, frame) {
    this.#server = server;
    this.#workers = workers;
    this.#views = views;
    this.#frame = frame;
    this.#place = frame.place;
  }

  /** The name of the view that is shown. */
  get name() {
    return this.#shown.name;
  }

  /** Shows the view that a fragment names, without its data at first. @param {string} hash */
  open(hash) {
    const { name, query } = parse(hash);
    const isNew = name !== this.#shown.name;
    const data = isNew ? null : this.#shown.data;
    this.#shown = { name: Object.hasOwn(this.#views, name) ? name : "", query, data, isOld: true, readAt: null };
    const title = this.#view.title(query);
    this.#frame.heading.textContent = title;
    document.title = `${title} · Event streams`;
    if (isNew) this.#place.replaceChildren();
    this.#draw();
    this.#place.setAttribute("aria-busy", "true");
    for (const field of this.#place.querySelectorAll("form[data-go] input")) {
      if (field instanceof HTMLInputElement) field.value = field.defaultValue;
    }
    return this.refresh();
  }

  get #view() {
    return this.#views[this.#shown.name];
  }

  /** Reads the data of the view, and shows it. Ends an earlier request for it. */
  async refresh() {
    clearTimeout(this.#timer);
    this.#request.abort();
    const { signal } = (this.#request = new AbortController());
    const shown = this.#shown;
    try {
      const data = await this.#view.load(this.#server, shown.query, signal, this.#workers);
      if (signal.aborted) return;
      Object.assign(shown, { data, readAt: new Date() });
      this.#frame.tell(null, null);
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof Failure)) throw error;
      if (shown.isOld) Object.assign(shown, { data: false, readAt: null });
      this.#frame.tell(error, shown.readAt);
      if (error.isRefusal) return this.#place.replaceChildren();
    }
    this.#place.setAttribute("aria-busy", "false");
    this.#draw();
    const summary = this.#place.querySelector("[data-summary]");
    if (shown.isOld) this.#frame.say(summary?.textContent ?? "");
    if (shown.isOld && this.#place.contains(document.activeElement)) summary?.scrollIntoView({ block: "nearest" });
    shown.isOld = false;
    this.#refreshLater();
  }

  #refreshLater() {
    const every = this.#view.every(this.#shown.query);
    if (every) this.#timer = setTimeout(() => (document.hidden ? this.#refreshLater() : this.refresh()), every * 1000);
  }

  /** Shows the reports of workers that have come, if the view shows any. */
  redraw() {
    if (this.#view.isLive && this.#shown.data) this.#draw();
  }

  #draw() {
    const { query, data } = this.#shown;
    const about = { query, now: this.#server.now(), workers: this.#workers };
    const loading = data === null && make("p", { class: "soft", "data-key": "loading" }, "Loading…");
    const body = data ? this.#view.body(data, about) : [loading];
    const nodes = [...(this.#view.form?.(query) ?? []), ...body].filter((child) => child instanceof Node);
    patch(this.#place, nodes);
  }
}
