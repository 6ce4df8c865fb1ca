// @ts-check
/**
 * The core; push-client.d.ts describes its use. A source reads one connection, and PushClient opens the next one.
 * @import * as T from "./sources/source.js"
 */

import { NativeSource } from "./sources/native.js";

/** Types that the client itself needs, even if the page has no handlers for them. */
const ALWAYS_HEARD = ["message", "sse.open", "sse.reset", "sse.heartbeat", "sse.batch", "sse.close", "sse.error"];

const HEARTBEAT = 15; // seconds, until `sse.open` gives the server's number
const MISSING_HEARTBEATS = 2.5; // after so many, the client reconnects
const FINAL = [204, 400, 401, 403, 410, 413]; // after these statuses the client does not try again
const SLOWER = 3; // factor for delays on slow networks
const STABLE = 5000; // ms that a stream must last until the next failure counts as the first
const MAX_WAITING = 1000; // at most so many events wait for a `for await` loop
const DEFAULTS = { minDelay: 1000, maxDelay: 30_000, maxRetries: Infinity, hiddenAfter: Infinity, page: true };

/** @implements {T.PushClient} */
export class PushClient extends EventTarget {
  #url;
  #options;
  #channels;
  /** @type {Map<string, Set<T.StoredHandler>>} */ #handlers = new Map(ALWAYS_HEARD.map((type) => [type, new Set()]));
  /** @type {T.State} */ #state = "connecting";
  #lastEventId;
  /** @type {T.Counters} */ #stats = { received: 0, bytes: 0, connects: 0, reconnects: 0, errors: 0, lastEvent: null };

  /** @type {T.Source | null} */ #source = null;
  /** @type {T.Sink | null} */ #sink = null; // of the current connection; calls of earlier sinks are ignored
  /** @type {Promise<T.Inbox> | null} */ #inbox = null;
  /** @type {T.Opening | null} */ #opening = null;
  #openedAt = Infinity;
  #failures = 0;
  #askWhy = false; // whether to ask by fetch why EventSource was refused
  #retry = 0; // ms, from a `retry:` field
  #timer = 0;
  #watchdog = 0;
  #suspended = false; // while the page is hidden, offline, ...
  /** @type {Promise<unknown> | null} */ #following = null;
  #closed = new AbortController();

  /** @param {string | URL} url @param {T.Options} options */
  constructor(url, options = {}) {
    super();
    const { channels = [], batch, lastEventId, remember } = options;
    this.#options = { ...DEFAULTS, ...options, types: this.#handlers };
    this.#url = new URL(url, globalThis.document?.baseURI);
    const query = this.#url.searchParams;
    const named = [...query.getAll("channels"), ...query.getAll("channel"), ...channels];
    this.#channels = new Set(named.join().split(",").filter(Boolean));
    query.delete("channel");
    if (batch) query.set("batch", `${batch}`);
    this.#lastEventId = (lastEventId ?? (remember && sessionStorage.getItem(`sse-push:${this.#url}`))) || "";
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
  on(type, handler) {
    let handlers = this.#handlers.get(type);
    if (!handlers) {
      this.#handlers.set(type, (handlers = new Set()));
      if (type === "*" && this.#source?.listen) this.#connect();
      else this.#source?.listen?.(type);
    }
    handlers.add(handler);
    return this;
  }

  /** The source still hears the type, since its events move the cursor. @param {string} type @param {T.Handler} handler */
  off(type, handler) {
    const handlers = this.#handlers.get(type) ?? new Set();
    for (const each of handlers) if (each === handler || each.handler === handler) handlers.delete(each);
    return this;
  }

  /** @param {string} type @param {T.Handler} handler */
  once(type, handler) {
    const first = (/** @type {T.Message} */ message) => {
      this.off(type, first);
      handler(message);
    };
    first.handler = handler;
    return this.on(type, first);
  }

  events(type = "*") {
    /** @type {T.Message[]} */ const messages = [];
    let wake = () => {};
    const gather = (/** @type {T.Message} */ message) => {
      if (messages.push(message) > MAX_WAITING) this.off(type, gather);
      wake();
    };
    this.on(type, gather).#closed.signal.addEventListener("abort", () => wake());
    const client = this;
    return (async function* () {
      try {
        for (;;) {
          const message = messages.shift();
          if (messages.length >= MAX_WAITING) throw new RangeError(`the loop is ${MAX_WAITING} events behind`);
          if (message) yield message;
          else if (client.state === "closed") return;
          else await new Promise((next) => (wake = () => next(0)));
        }
      } finally {
        client.off(type, gather);
      }
    })();
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

  /** Reconnects if necessary: the cursor is valid for all channels. @param {string[]} join @param {string[]} leave */
  async #change(join, leave) {
    join = join.filter((name) => !this.#channels.has(name));
    leave = leave.filter((name) => this.#channels.has(name));
    for (const name of join) this.#channels.add(name);
    for (const name of leave) this.#channels.delete(name);
    if (!this.#sink || !(join.length + leave.length) || this.#source?.change?.(this.#channels)) return;
    const { changeChannels } = await import("./channels.js");
    const opening = this.#state === "open" ? this.#opening : null;
    const undo = () => join.forEach((name) => this.#channels.delete(name));
    if (!(await changeChannels(this.#url, this.#options, opening, { join, leave }, undo))) this.#connect();
  }

  /** Opens a new connection at once. It continues after the cursor. */
  #connect = async () => {
    if (this.#state === "closed") return;
    this.#disconnect();
    const sink = (this.#sink = this.#newSink());
    this.#setState("connecting");
    this.#watch();
    try {
      const Source = await this.#sourceClass();
      if (sink === this.#sink) this.#source = new Source(this.#address(), this.#options, sink);
    } catch (error) { // there is no network, or a module could not be loaded
      sink.fail({ reason: "lost", error: /** @type {Error} */ (error) });
    }
  };

  #address() {
    const url = new URL(this.#url);
    if (this.#channels.size) url.searchParams.set("channels", this.channels.join());
    if (this.#lastEventId) url.searchParams.set("last_event_id", this.#lastEventId);
    return url.href;
  }

  /** @returns {Promise<T.SourceClass>} */
  async #sourceClass() {
    const { EventSource, headers, token, method, body, tabs, transport } = this.#options;
    if (tabs) return (await import("./tabs/tab-source.js")).TabSource;
    const needs = headers || token || method || body || (this.#handlers.has("*") && !EventSource);
    if (transport === "fetch" || needs) return (await import("./sources/fetch.js")).FetchSource;
    // If the module cannot be loaded, EventSource tries again.
    const checked = this.#askWhy && (await import("./sources/checked.js").catch(() => null));
    return checked ? checked.CheckedSource : NativeSource;
  }

  #newSink() {
    const isCurrent = () => sink === this.#sink;
    /** @type {T.Sink} */ const sink = {
      event: (event) => isCurrent() && this.#receive(event, sink),
      deliver: (message) => isCurrent() && this.#deliver(message),
      fail: (ending) => isCurrent() && this.#fail(ending),
      retry: (ms) => isCurrent() && (this.#retry = ms),
      state: (state, detail) => isCurrent() && this.#setState(state, detail),
    };
    return sink;
  }

  /** @param {T.RawEvent} event @param {T.Sink} sink */
  #receive(event, sink) {
    this.#watch();
    this.#stats.received += 1;
    this.#stats.bytes += event.data.length;
    /** @type {T.RawEvent[]} */ const events = event.type === "sse.batch" ? parsed(event.data) : [event];
    for (const { type = "message", data, id = "", channels } of events) {
      const message = { type, data: parsed(data), lastEventId: id, ...(channels && { channels }) };
      if (message.data?.compressed === true && sink === this.#sink) {
        this.#inbox ??= import("./inbox.js").then(({ Inbox }) => new Inbox(sink, this.#options.maxInflated));
      }
      if (!this.#inbox) sink.deliver(message);
      else this.#inbox.then((inbox) => inbox.add(message), (error) => sink.fail({ reason: "lost", error }));
    }
  }

  /** @param {T.PackedMessage} message */
  #deliver(message) {
    const { type, data, lastEventId, broken } = message;
    if (lastEventId) this.#lastEventId = lastEventId;
    if (broken) return this.#emitError({ reason: "payload", error: broken, lastEventId });
    this.#stats.lastEvent = { type, lastEventId, at: new Date().toISOString() };
    if (type === "sse.open") this.#onOpen(data);
    for (const key of [type, "*"]) {
      for (const handler of [...(this.#handlers.get(key) ?? [])]) {
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
    this.#openedAt = Date.now();
    this.#askWhy = false;
    if (globalThis.document && this.#options.page) this.#followPage();
    if (this.#stats.connects++) this.#stats.reconnects += 1;
    this.#watch();
    this.#setState("open");
  }

  /** @param {T.Ending} ending */
  #fail({ reason, status, error, retryAfter = 0 }) {
    const detail = { reason, status, error };
    this.#emitError(detail);
    if (this.#state === "closed") return; // a listener closed the client
    if (FINAL.includes(status ?? 0)) return this.#stop("closed", detail);
    if (reason === "refused" && status === undefined && !this.#askWhy) {
      this.#askWhy = true;
      return this.#connect();
    }
    if (Date.now() - this.#openedAt > STABLE) this.#failures = 0;
    if (this.#failures < this.#options.maxRetries) this.#wait(detail, retryAfter + this.#delay());
    else this.#stop("closed", { ...detail, reason: "retries" });
  }

  /** @param {object} detail */
  #emitError(detail) {
    this.#stats.errors += 1;
    this.dispatchEvent(new CustomEvent("error", { detail }));
  }

  /** @param {T.Closing} closing */
  #onClose({ reason, reconnect, retry = 0 }) {
    if (reconnect) this.#wait({ reason }, retry);
    else this.#stop("closed", { reason });
  }

  /** @param {object} detail @param {number} delay */
  #wait(detail, delay) {
    this.#stop("waiting", { ...detail, delay });
    if (!this.#suspended) this.#timer = setTimeout(this.#connect, delay);
  }

  /** Full jitter: clients that lost one server return at different times. */
  #delay() {
    const { minDelay, maxDelay } = this.#options;
    const slow = /2g/.test(/** @type {any} */ (navigator).connection?.effectiveType) ? SLOWER : 1;
    return Math.random() * slow * Math.min(maxDelay, Math.max(minDelay, this.#retry) * 2 ** this.#failures++);
  }

  #followPage() {
    const suspend = (/** @type {string} */ reason) => {
      this.#suspended = true;
      this.#stop("waiting", { reason });
    };
    const resume = () => {
      this.#suspended = false;
      this.#connect();
    };
    const client = { suspend, resume, save: this.#save, closed: this.#closed.signal };
    this.#following ??= import("./page-lifecycle.js").then(
      ({ followPage }) => followPage(client, this.#options.hiddenAfter),
      () => (this.#following = null), // the next connection tries again
    );
  }

  close() {
    if (this.#state === "closed") return;
    this.#save();
    this.#stop("closed");
  }

  /** (Re)starts the time in which the next event must arrive. A timer of 2 ** 31 ms or more fires at once. */
  #watch() {
    clearTimeout(this.#watchdog);
    const silence = MISSING_HEARTBEATS * (this.#opening?.heartbeat ?? HEARTBEAT) * 1000;
    this.#watchdog = setTimeout(() => this.#sink?.fail({ reason: "silent" }), Math.min(silence, 2 ** 31 - 1));
  }

  #disconnect() {
    clearTimeout(this.#watchdog);
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#source = this.#sink = this.#inbox = null;
  }

  /** @param {T.State} state @param {object} [detail] */
  #stop(state, detail) {
    this.#disconnect();
    this.#openedAt = Infinity;
    if (state === "closed") this.#closed.abort();
    this.#setState(state, detail);
  }

  /** @param {T.State} state @param {object} [detail] */
  #setState(state, detail) {
    if (state === "waiting") clearTimeout(this.#watchdog);
    if (state === this.#state) return;
    this.#state = state;
    this.dispatchEvent(new CustomEvent("statechange", { detail: { state, ...detail } }));
  }

  #save = () => {
    if (this.#options.remember) sessionStorage.setItem(`sse-push:${this.#url}`, this.#lastEventId);
  };
}

/** @param {string} text */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
