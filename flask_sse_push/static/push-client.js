// @ts-check
/**
 * The core; push-client.d.ts describes its use. A source reads one connection, and PushClient opens the next one.
 * @import * as T from "./sources/source.js"
 */

import * as native from "./sources/native.js";

/** Types that the client needs, even if the page has no handlers for them. */
const ALWAYS_HEARD = ["message", "sse.open", "sse.reset", "sse.heartbeat", "sse.batch", "sse.close", "sse.error"];
const HEARTBEAT = 15; // seconds, until `sse.open` gives the server's
const MISSING_HEARTBEATS = 2.5; // until the client reconnects
const LONGEST_TIMER = 2 ** 31 - 1; // ms
const FINAL = [204, 400, 401, 403, 405, 410, 413, 414, 415, 431, 505]; // statuses after which the client closes
const SLOWER = 3; // factor for delays on slow networks
const STABLE = 5000; // ms; a failure after a longer stream counts as the first
const MAX_WAITING = 1000; // events, for a `for await` loop
const DEFAULTS = { minDelay: 1000, maxDelay: 30_000, maxRetries: Infinity, hiddenAfter: Infinity, page: true };

/** @implements {T.PushClient} */
export class PushClient extends EventTarget {
  #url;
  #options;
  #channels;
  /** @type {Map<string, Map<T.Handler, boolean>>} */ #handlers = new Map(ALWAYS_HEARD.map((type) => [type, new Map()]));
  /** @type {T.State} */ #state = "connecting";
  #lastEventId;
  /** @type {T.Counters} */ #stats = { received: 0, bytes: 0, connects: 0, reconnects: 0, errors: 0, lastEvent: null };

  /** @type {T.Connection} */ #connection = {};
  /** @type {T.Opening | null} */ #opening = null;
  #failures = 0;
  #askWhy = false; // by fetch, since EventSource does not say why it was refused
  #retry = 0; // ms, from a `retry:` field
  #timer = 0; // until the next attempt, or until the connection counts as silent
  #suspended = false; // while the page is hidden, offline, ...
  /** @type {unknown} */ #following = null;
  #closed = new AbortController();

  /** @param {string | URL} url @param {T.Options} options */
  constructor(url, options = {}) {
    super();
    const { channels = [], batch, lastEventId, remember } = options;
    this.#url = new URL(url, globalThis.document?.baseURI);
    const query = this.#url.searchParams;
    const named = [...query.getAll("channels"), ...query.getAll("channel"), ...channels];
    this.#channels = new Set(named.join().split(",").filter(Boolean));
    query.delete("channel");
    if (batch) query.set("batch", `${batch}`);
    const memory = remember ? `sse-push:${this.#url}` : "";
    this.#options = { ...DEFAULTS, ...options, memory, types: this.#handlers };
    this.#lastEventId = (lastEventId ?? (memory && sessionStorage.getItem(memory))) || "";
    queueMicrotask(this.#connect);
  }

  get state() {
    return this.#state;
  }

  get lastEventId() {
    return this.#lastEventId;
  }

  get channels() {
    return [...this.#channels];
  }

  get stats() {
    return { state: this.#state, ...this.#stats };
  }

  /** @param {string} type @param {T.Handler} handler */
  on(type, handler, once = false) {
    const handlers = this.#handlers.get(type) ?? new Map();
    handlers.set(handler, once);
    if (this.#handlers.has(type)) return this;
    this.#handlers.set(type, handlers);
    const { source } = this.#connection;
    if (type === "*" && source?.listen) this.#connect();
    else source?.listen?.(type);
    return this;
  }

  /** The source still hears the type, since its events move the cursor. @param {string} type @param {T.Handler} handler */
  off(type, handler) {
    this.#handlers.get(type)?.delete(handler);
    return this;
  }

  /** @param {string} type @param {T.Handler} handler */
  once(type, handler) {
    return this.on(type, handler, true);
  }

  /** @returns {T.Loop} */
  events(type = "*") {
    /** @type {T.Message[]} */ const messages = [];
    const gather = (/** @type {T.Message} */ message) => {
      if (messages.push(message) > MAX_WAITING) this.off(type, gather);
    };
    this.on(type, gather);
    const module = import("./event-loop.js");
    return (async function* (client) {
      yield* (await module).loop(client, type, messages, gather, MAX_WAITING);
    })(this);
  }

  [Symbol.asyncIterator]() {
    return this.events();
  }

  /** @param {string[]} channels */
  join(...channels) {
    return this.#change(channels, []);
  }

  /** @param {string[]} channels */
  leave(...channels) {
    return this.#change([], channels);
  }

  /** @param {string[]} join @param {string[]} leave */
  async #change(join, leave) {
    const channels = this.#channels;
    const before = this.channels;
    for (const name of join) channels.add(name);
    for (const name of leave) channels.delete(name);
    const { source, sink } = this.#connection;
    if (!sink || source?.change?.(channels)) return;
    const opening = this.#state === "open" ? this.#opening : null;
    const { changeChannels } = await import("./channels.js");
    const changed = await changeChannels(this.#url, this.#options, opening, before, channels);
    if (!changed) this.#connect(); // the cursor is valid for all channels
  }

  /** Opens a new connection at once. It continues after the cursor. */
  #connect = async () => {
    if (this.#state === "closed" || this.#suspended) return;
    this.#disconnect();
    const connection = this.#connection;
    const isCurrent = () => connection === this.#connection;
    /** @type {T.Sink} */ const sink = (connection.sink = {
      event: (event) => isCurrent() && this.#receive(event, sink),
      deliver: (message) => isCurrent() && this.#deliver(message),
      fail: (ending) => isCurrent() && this.#fail(ending),
      retry: (ms) => isCurrent() && (this.#retry = ms),
      state: (state, detail) => isCurrent() && this.#setState(state, detail),
    });
    this.#setState("connecting");
    this.#watch();
    try {
      const { Source } = await this.#sourceModule();
      if (isCurrent()) connection.source = new Source(this.#address(), this.#options, sink);
    } catch (error) { // a module could not be loaded
      this.#askWhy = false;
      sink.fail({ reason: "lost", error: /** @type {Error} */ (error) });
    }
  };

  #address() {
    const url = new URL(this.#url);
    if (this.#channels.size) url.searchParams.set("channels", this.channels.join());
    if (this.#lastEventId) url.searchParams.set("last_event_id", this.#lastEventId);
    return url.href;
  }

  /** @returns {T.SourceModule | Promise<T.SourceModule>} */
  #sourceModule() {
    const { EventSource, headers, token, method, body, tabs, transport } = this.#options;
    if (tabs) return import("./tabs/tab-source.js");
    const star = this.#handlers.has("*") && !EventSource;
    const isLong = this.#address().length > native.MAX_URL;
    const needsFetch = transport || headers || token || method || body || star || isLong || this.#askWhy;
    return needsFetch ? import("./sources/fetch.js") : native;
  }

  /** @param {T.RawEvent} event @param {T.Sink} sink */
  #receive(event, sink) {
    this.#watch();
    this.#stats.received += 1;
    this.#stats.bytes += event.data.length;
    const connection = this.#connection;
    if (event.type === "sse.open") connection.marks = isMarked(event.data);
    if (event.type === "run.begin") connection.marks ??= isMarked(event.data); // `sse.stream` sends no `sse.open`
    const read = (/** @type {T.RawEvent} */ event) => messageOf(event, event.marks ?? connection.marks);
    const message = read(event);
    if (message.type === "sse.batch" || message.data?.compressed === true) {
      const { maxInflated } = this.#options;
      connection.inbox ??= import("./inbox.js").then(({ Inbox }) => new Inbox(sink, read, maxInflated));
    }
    const { inbox } = connection;
    if (!inbox) this.#deliver(message);
    else inbox.then((inbox) => inbox.add(message), (error) => sink.fail({ reason: "lost", error }));
  }

  /** @param {T.PackedMessage} message */
  #deliver(message) {
    const { type, data, lastEventId, broken } = message;
    if (lastEventId) this.#lastEventId = lastEventId;
    if (broken) return this.#emitError({ reason: "payload", error: broken, lastEventId });
    this.#stats.lastEvent = { type, lastEventId, at: new Date().toISOString() };
    if (type === "sse.open") this.#onOpen(data);
    for (const key of [type, "*"]) {
      for (const [handler, once] of [...(this.#handlers.get(key) ?? [])]) {
        if (once) this.off(key, handler);
        try {
          handler(message);
        } catch (error) {
          reportError(error); // the other handlers still get the event
        }
      }
    }
    if (type === "sse.close" && this.#state !== "closed") this.#onClose(data);
  }

  /** @param {T.Opening} opening */
  #onOpen(opening) {
    this.#opening = opening;
    this.#connection.openedAt = Date.now();
    this.#askWhy = false;
    if (globalThis.document && this.#options.page) this.#followPage();
    if (this.#stats.connects++) this.#stats.reconnects += 1;
    this.#watch();
    this.#setState("open");
  }

  /** @param {T.Ending} ending */
  #fail({ retryAfter = 0, ...detail }) {
    const { openedAt = Infinity } = this.#connection;
    this.#emitError(detail);
    if (this.#state === "closed") return; // a listener closed the client
    if (FINAL.includes(detail.status ?? 0)) return this.#stop("closed", detail);
    if (detail.reason === "refused" && !detail.status) {
      this.#askWhy = true;
      return this.#connect();
    }
    if (Date.now() - openedAt > STABLE) this.#failures = 0;
    if (this.#failures < this.#options.maxRetries) this.#wait(detail, retryAfter + this.#delay());
    else this.#stop("closed", { ...detail, reason: "retries" });
  }

  /** @param {object} detail */
  #emitError(detail) {
    this.#stats.errors += 1;
    this.#emit("error", detail);
  }

  /** @param {string} type @param {object} detail */
  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  /** @param {T.Closing} closing */
  #onClose({ reason, reconnect, retry = 0 }) {
    if (reconnect) this.#wait({ reason }, retry);
    else this.#stop("closed", { reason });
  }

  /** @param {object} detail @param {number} delay */
  #wait(detail, delay) {
    this.#stop("waiting", { ...detail, delay });
    this.#timer = setTimeout(this.#connect, delay);
  }

  /** Full jitter: clients that lost one server return at different times. */
  #delay() {
    const { minDelay, maxDelay } = this.#options;
    const slow = /2g/.test(/** @type {any} */ (navigator).connection?.effectiveType) ? SLOWER : 1;
    return Math.random() * slow * Math.min(maxDelay, Math.max(minDelay, this.#retry) * 2 ** this.#failures++);
  }

  #followPage() {
    const suspend = (/** @type {string} */ reason) => {
      this.#suspended = Boolean(reason);
      if (reason) this.#stop("waiting", { reason });
      else this.#connect();
    };
    this.#following ??= import("./page-lifecycle.js").then(
      ({ followPage }) => followPage(this, this.#options, suspend, this.#closed.signal),
      () => (this.#following = null), // the next connection tries again
    );
  }

  close() {
    if (this.#state !== "closed") this.#stop("closed");
  }

  /** (Re)starts the time in which the next event must arrive. */
  #watch() {
    clearTimeout(this.#timer);
    const silence = MISSING_HEARTBEATS * (this.#opening?.heartbeat ?? HEARTBEAT) * 1000;
    this.#timer = setTimeout(() => this.#fail({ reason: "silent" }), Math.min(silence, LONGEST_TIMER));
  }

  #disconnect() {
    clearTimeout(this.#timer);
    this.#connection.source?.close();
    this.#connection = {};
  }

  /** @param {T.State} state @param {object} [detail] */
  #stop(state, detail) {
    this.#disconnect();
    if (state === "closed") this.#closed.abort();
    this.#setState(state, detail);
  }

  /** @param {T.State} state @param {object} [detail] */
  #setState(state, detail) {
    if (state === "waiting") clearTimeout(this.#timer);
    if (state === this.#state) return;
    this.#state = state;
    this.#emit("statechange", { state, ...detail });
  }
}

/** Whether the server has marked `text` as JSON. @param {string} text */
const isMarked = (text) => text.endsWith("\t");

/** @param {T.RawEvent} event @param {boolean} [marks] Whether the server marks JSON. @returns {T.Message} */
function messageOf({ type = "message", data: text, id = "", channels }, marks) {
  const message = { type, data: text, text, lastEventId: id, ...(channels && { channels }) };
  try {
    if (!marks || isMarked(text) || type.startsWith("sse.")) message.data = JSON.parse(text);
  } catch {} // the data is text
  return message;
}
