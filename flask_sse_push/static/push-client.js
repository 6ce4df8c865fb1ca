// @ts-check
/** @import * as T from "./sources/source.js" */

import * as native from "./sources/native.js";

const ALWAYS_HEARD = "message sse.open sse.reset sse.heartbeat sse.batch sse.close sse.error".split(" ");
const MAX_WAITING = 1000; // events
const MAX_EVENT = 16_000_000; // characters

const NUMBERS = "minDelay maxDelay maxRetries hiddenAfter batch maxEvent maxInflated openTimeout".split(" ");
const CALLABLE = "headers token EventSource".split(" ");
const OTHERS = "channels lastEventId remember withCredentials tabs page transport method body mode headers token".split(" ");

/** @implements {T.PushClient} */
export class PushClient extends EventTarget {
  #url;
  /** @type {T.InnerOptions} */ #options;
  #channels;
  /** @type {Map<string, Map<T.Handler, boolean>>} */ #handlers = new Map(ALWAYS_HEARD.map((type) => [type, new Map()]));
  /** @type {T.State} */ #state = "connecting";
  #memory;
  #lastEventId;
  /** @type {T.Counters} */ #stats = { received: 0, bytes: 0, connects: 0, reconnects: 0, errors: 0, lastEvent: null };

  /** @type {T.Connection} */ #connection = {};
  /** @type {T.Opening | null} */ #opening = null;
  /** @type {T.Trouble} */ #trouble = { failures: 0 };
  #timer = 0;
  #suspended = false;
  /** @type {unknown} */ #following;
  /** @type {Set<Event>} */ #dispatching = new Set();
  #closed = new AbortController();

  /** @param {string | URL} url @param {T.Options} options */
  constructor(url, options = {}) {
    super();
    const given = Object.entries(options).filter(([, value]) => value != null);
    for (const [name, value] of given) {
      const isNumber = value >= 0 && parseFloat(value) >= 0;
      const names = typeof value === "function" ? CALLABLE : isNumber ? [...NUMBERS, ...OTHERS] : OTHERS;
      if (!names.includes(name)) misuse("option", name, value, [...NUMBERS, ...OTHERS, "EventSource"]);
    }
    this.#options = Object.fromEntries(given);
    const { channels = "", batch, lastEventId, remember } = this.#options;
    try {
      const base = globalThis.document?.baseURI ?? globalThis.location?.href;
      this.#url = new URL((typeof url === "string" ? url : url.href) || "x:", base);
      if (!/^http/.test(this.#url.protocol)) throw 0;
    } catch {
      misuse("URL", url);
    }
    const query = this.#url.searchParams;
    const named = [query.getAll("channels"), query.getAll("channel"), typeof channels === "string" ? channels : [...channels]];
    this.#channels = new Set(split(named));
    const cursor = query.get("last_event_id") ?? "";
    if (query.has("events")) console.warn("PushClient ignores events=plain");
    for (const name of ["channel", "last_event_id", "events", "poll"]) query.delete(name);
    if (batch) query.set("batch", `${batch}`);
    this.#memory = remember && `sse-push:${this.#url}`;
    this.#lastEventId = lastEventId || cursor;
    try {
      if (this.#memory) this.#lastEventId = lastEventId || sessionStorage.getItem(this.#memory) || cursor;
    } catch {} // no storage
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

  get mode() {
    return this.#trouble.poll ?? this.#options.mode === "poll" ? "poll" : "stream";
  }

  get stats() {
    return { state: this.#state, ...this.#stats };
  }

  /** @param {string} type @param {T.Handler} handler */
  on(type, handler, once = false) {
    if (typeof handler !== "function") misuse("handler", type, handler);
    const handlers = this.#handlers.get(type) ?? new Map();
    handlers.set(handler, once);
    if (this.#handlers.has(type)) return this;
    this.#handlers.set(type, handlers);
    const { source } = this.#connection;
    if (type === "*" && source?.listen) this.#connect();
    else source?.listen?.(type);
    return this;
  }

  /** @param {string} type @param {T.Handler} handler */
  off(type, handler) {
    this.#handlers.get(type)?.delete(handler);
    return this;
  }

  /** @param {string} type @param {T.Handler} handler */
  once(type, handler) {
    return this.on(type, handler, true);
  }

  /** @param {[any, any]} listener */
  addEventListener(...listener) {
    if (!/^(error|statechange)$/.test(listener[0])) misuse("listener", listener[0]);
    super.addEventListener(...listener);
  }

  /** @returns {T.Loop} */
  events(type = "*") {
    /** @type {T.Message[]} */ const messages = [];
    const gather = (/** @type {T.Message} */ event) => messages.length > MAX_WAITING || messages.push(event);
    this.on(type, gather);
    const module = import("./event-loop.js");
    return (async function* (client) {
      yield* (await module).loop(client, type, messages, gather, MAX_WAITING, client.#closed.signal);
    })(this);
  }

  [Symbol.asyncIterator]() {
    return this.events();
  }

  /** @param {string[]} channels */
  join(...channels) {
    return this.#change("add", channels);
  }

  /** @param {string[]} channels */
  leave(...channels) {
    return this.#change("delete", channels);
  }

  /** @param {"add" | "delete"} verb @param {string[]} names */
  async #change(verb, names) {
    const before = this.channels;
    if (!split(names)[0]) misuse("channel", verb, names);
    for (const name of split(names)) this.#channels[verb](name);
    const after = this.channels;
    const { signal } = this.#closed;
    if (this.#trouble.change) return this.#trouble.change(split(names), this.#channels, signal);
    if (!this.#connection.sink) return;
    const opening = this.#state === "open" ? this.#opening : null;
    const { changeChannels } = await import("./channels.js");
    const changed = await changeChannels(this.#url, this.#options, opening, before, after, this.#channels, signal);
    if (!changed) this.#connect();
  }

  /** Opens a connection after the cursor. */
  #connect = async () => {
    if (this.#state === "closed" || this.#suspended) return;
    this.#disconnect();
    const connection = this.#connection;
    const isCurrent = () => connection === this.#connection;
    /** @type {T.Sink} */ const sink = (connection.sink = {
      types: this.#handlers,
      trouble: this.#trouble,
      event: (event) => isCurrent() && this.#receive(event, sink),
      deliver: (message) => isCurrent() && this.#deliver(message),
      fail: (ending) => isCurrent() && this.#end(ending),
      waiting: (detail) => isCurrent() && this.#setState("waiting", detail),
    });
    this.#watch();
    this.#setState("connecting");
    try {
      const { Source } = await this.#sourceModule();
      if (!isCurrent()) return;
      const source = new Source(this.#address(), this.#options, sink);
      if (isCurrent()) connection.source = source;
      else source.close();
    } catch (error) {
      sink.fail({ reason: "lost", error });
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
    const { EventSource, headers, token, transport, method, body } = this.#options;
    const own = transport || headers || token || method || body;
    const [page] = performance.getEntriesByType("navigation");
    const isScarce = page?.toJSON().nextHopProtocol === "http/1.1" && this.#url.origin === location.origin;
    if (this.#options.tabs ?? (isScarce && !own && !EventSource)) return import("./tabs/tab-source.js");
    const isNative = EventSource || (globalThis.EventSource && !this.#handlers.has("*"));
    const isLong = this.#address().length > native.MAX_URL;
    return own || !isNative || isLong || this.#trouble.askWhy || this.mode === "poll" ? import("./sources/fetch.js") : native;
  }

  /** @param {T.RawEvent} event @param {T.Sink} sink */
  #receive(event, sink) {
    this.#watch();
    this.#stats.received += 1;
    this.#stats.bytes += event.data.length;
    const message = this.#messageOf(event);
    if (message.type === "sse.batch" || event.data.endsWith("\t\t")) {
      const { maxInflated } = this.#options;
      this.#connection.inbox ??= import("./inbox.js").then(({ Inbox }) => new Inbox(sink, this.#messageOf, maxInflated));
    }
    const { inbox } = this.#connection;
    if (!inbox) this.#deliver(message);
    else inbox.then((inbox) => inbox.add(message)).catch((error) => sink.fail({ reason: "lost", error }));
  }

  /** @type {(event: T.RawEvent) => T.PackedMessage} */
  #messageOf = ({ type = "message", data: text, id, channels, skipped, marks }) => {
    const connection = this.#connection;
    const size = text.length;
    const isControl = type.startsWith("sse.");
    const isMarked = text.endsWith("\t"); // the server wrote JSON
    if (type === "sse.open") connection.marks = isMarked;
    if (type === "run.begin") connection.marks ??= isMarked; // runs have no `sse.open`
    if (size > (this.#options.maxEvent ?? MAX_EVENT) && !isControl) skipped ??= { reason: "too large", size };
    const message = { type, data: text, text, lastEventId: id, ...(channels && { channels }), ...(skipped && { skipped }) };
    try {
      if (isControl || isMarked || !(marks ?? connection.marks)) message.data = JSON.parse(text);
    } catch {} // the data is text
    return message;
  };

  /** @param {T.PackedMessage} message */
  #deliver(message) {
    const { type, data, channels, skipped } = message;
    const lastEventId = (this.#lastEventId = message.lastEventId ??= this.#lastEventId);
    if (skipped) return skipped.reason && this.#emit("error", { type, lastEventId, channels, ...skipped });
    this.#stats.lastEvent = { type, lastEventId, at: new Date().toISOString() };
    if (type === "sse.open") this.#onOpen(data ?? {});
    if (type === "sse.error") import("./console.js").then(({ show }) => show(data)).catch(() => null);
    for (const key of new Set([type, "*"])) {
      for (const [handler, once] of [...(this.#handlers.get(key) ?? [])]) {
        if (this.#state === "closed") return;
        if (once) this.off(key, handler);
        try {
          handler(message);
        } catch (error) {
          (globalThis.reportError ?? console.error)(error);
        }
      }
    }
    if (type === "sse.close") this.#end({ closing: data });
  }

  /** @param {T.Opening} opening */
  #onOpen(opening) {
    this.#opening = opening;
    this.#trouble.retry = opening.retry ?? this.#trouble.retry;
    this.#connection.openedAt = Date.now();
    if (this.#stats.connects++) this.#stats.reconnects += 1;
    this.#following ??= import("./page-lifecycle.js").then(
      ({ followPage }) => followPage(this, this.#options, this.#memory, this.#suspend, this.#closed.signal),
      () => (this.#following = null),
    );
    this.#watch();
    this.#setState("open");
  }

  /** @param {T.Ending} ending */
  async #end(ending) {
    const { openedAt } = this.#connection;
    this.#disconnect();
    const connection = this.#connection;
    this.#timer = setTimeout(this.#connect, 10_000); // if no module loads
    const module = await import("./reconnect.js").catch(() => null);
    if (connection !== this.#connection) return;
    if (!module) return this.#setState("waiting", ending);
    const { state, detail = {}, error } = module.nextStep(ending, openedAt, this.#trouble, this.#options);
    if (error) this.#emit("error", detail);
    if (connection !== this.#connection) return;
    if (state === "connecting") this.#connect();
    else this.#stop(state, detail);
  }

  /** @param {string} type @param {object} detail */
  #emit(type, detail) {
    if (type === "error") this.#stats.errors += 1;
    const event = new CustomEvent(type, { detail });
    this.#dispatching.add(event);
    this.dispatchEvent(event);
    this.#dispatching.delete(event);
  }

  /** @param {string} reason */
  #suspend = (reason) => {
    this.#suspended = Boolean(reason);
    if (reason) this.#stop("waiting", { reason });
    else this.#connect();
  };

  close() {
    for (const event of this.#dispatching) event.stopImmediatePropagation();
    if (this.#state !== "closed") this.#stop("closed");
  }

  #watch() {
    clearTimeout(this.#timer);
    const end = () => this.#state === "waiting" || this.#end({ reason: "silent" });
    this.#timer = setTimeout(end, Math.min(2500 * Number(this.#opening?.heartbeat) || 37500, 1e9));
  }

  #disconnect() {
    clearTimeout(this.#timer);
    this.#connection.source?.close();
    this.#connection = {};
  }

  /** @param {T.State} state @param {T.StateDetail} [detail] */
  #stop(state, detail) {
    this.#disconnect();
    if (state === "closed") this.#closed.abort(detail);
    if (detail?.delay !== undefined) this.#timer = setTimeout(this.#connect, detail.delay);
    this.#setState(state, detail);
  }

  /** @param {T.State} state @param {T.StateDetail} [detail] */
  #setState(state, detail) {
    if (state === this.#state) return;
    this.#state = state;
    this.#emit("statechange", { state, mode: this.mode, ...detail });
  }
}

const split = (/** @type {unknown[]} */ names) => names.join().split(",").filter(Boolean);

/** @param {unknown[]} about @returns {never} */
function misuse(...about) {
  import("./misuse.js").then(({ explanation }) => console.error("PushClient:", explanation(about)));
  throw new TypeError(`PushClient: wrong ${about[0]} ${about[1]}; the console says more`);
}
