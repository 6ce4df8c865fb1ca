/**
 * Server-Sent Events that come back by themselves and miss nothing; push-client.d.ts says how to use it.
 * A *source* reads one connection; the reconnecting is done here, whatever the source.
 */

import { NativeSource } from "./sources/native.js";

/** Types heard without a handler, too: the protocol's own tell how to go on. */
const ALWAYS_HEARD = ["message", "sse.open", "sse.reset", "sse.heartbeat", "sse.batch", "sse.close", "sse.error"];

/** Heartbeats that may fail to come before the line counts as dead. */
const PATIENCE = 2.5;

/** Seconds between them until `sse.open` has told: the server's default. */
const HEARTBEAT = 15;

/** Answers that the same request will get again. */
const FINAL = [204, 400, 401, 403, 410, 413];

/** How much longer delays are on slow networks. */
const SLOWER = 3;

/** Ms a stream must hold before a failure counts as the first one again. */
const STEADY = 5000;

/** Events that may wait for one that is inflated, or for a busy loop. */
const MAX_WAITING = 1000;

const DEFAULTS = { minDelay: 1000, maxDelay: 30_000, maxRetries: Infinity, hiddenAfter: Infinity, page: true };

/** One stream, over as many connections as it takes. */
export class PushClient extends EventTarget {
  #url;
  #options;
  #channels;
  #handlers = new Map(ALWAYS_HEARD.map((type) => [type, new Set()]));
  #state = "connecting";
  #lastEventId;
  #stats = { received: 0, bytes: 0, connects: 0, reconnects: 0, errors: 0, lastEvent: null };

  #source = null;
  #turn = 0; // counts connections: an earlier one is not heard any more
  #connection = null; // what `sse.open` told
  #opened = Infinity;
  #failures = 0;
  #asks = false; // by fetch why it was refused
  #retry = 0; // ms, told by the server
  #timer = 0;
  #watchdog = 0;
  #suspended = new Set(); // why the page wants no connection now
  #followed;
  #over = new AbortController(); // aborted when it is closed for good
  #waiting = 0;
  #order = Promise.resolve();

  constructor(url, options = {}) {
    super();
    const { channels = [], batch, lastEventId, remember } = options;
    this.#options = { ...DEFAULTS, ...options };
    this.#url = new URL(url, globalThis.document?.baseURI);
    const query = this.#url.searchParams;
    const named = [...query.getAll("channels"), ...query.getAll("channel"), ...channels];
    this.#channels = new Set(named.join().split(",").filter(Boolean));
    query.delete("channel");
    if (batch) query.set("batch", batch);
    this.#lastEventId = (lastEventId ?? (remember && sessionStorage.getItem(`sse-push:${this.#url}`))) || "";
    queueMicrotask(() => this.#turn || this.#connect());
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

  on(type, handler) {
    let handlers = this.#handlers.get(type);
    if (!handlers) {
      this.#handlers.set(type, (handlers = new Set()));
      if (type === "*" && this.#source instanceof NativeSource) this.#connect();
      else this.#source?.listen?.(type);
    }
    handlers.add(handler);
    return this;
  }

  off(type, handler) {
    // The source goes on listening: that keeps the cursor up to date.
    const handlers = this.#handlers.get(type) ?? [];
    for (const each of handlers) if (each === handler || each.handler === handler) handlers.delete(each);
    return this;
  }

  once(type, handler) {
    const first = (message) => {
      this.off(type, first);
      handler(message);
    };
    first.handler = handler;
    return this.on(type, first);
  }

  /** Gathers from this call on, until the client is closed. */
  events(type = "*") {
    const line = { gathered: [], wake: () => {} };
    const take = (message) => {
      if (line.gathered.push(message) > MAX_WAITING) this.off(type, take);
      line.wake();
    };
    this.on(type, take).#over.signal.addEventListener("abort", () => line.wake());
    return this.#walk(line, () => this.off(type, take));
  }

  async *#walk(line, leave) {
    try {
      for (;;) {
        while (line.gathered.length) {
          if (line.gathered.length > MAX_WAITING) throw new RangeError(`the loop is ${MAX_WAITING} events behind`);
          yield line.gathered.shift();
        }
        if (this.#state === "closed") return;
        await new Promise((wake) => (line.wake = wake));
      }
    } finally {
      leave();
    }
  }

  [Symbol.asyncIterator]() {
    return this.events();
  }

  join(...channels) {
    return this.#change(channels.filter((name) => !this.#channels.has(name)), []);
  }

  leave(...channels) {
    return this.#change([], channels.filter((name) => this.#channels.has(name)));
  }

  /** A cursor holds for any channels (of a shard), so a new connection misses nothing of those that stay. */
  async #change(join, leave) {
    for (const name of join) this.#channels.add(name);
    for (const name of leave) this.#channels.delete(name);
    if (!this.#turn || this.#state === "waiting" || !(join.length + leave.length)) return;
    if (this.#source?.change?.(this.#channels)) return;
    const { changeRooms } = await import("./channels.js");
    const opening = this.#state === "open" && this.#connection;
    const undo = () => join.forEach((name) => this.#channels.delete(name));
    if (!(await changeRooms(this.#url, this.#options, opening, { join, leave }, undo))) this.#connect();
  }

  /** Connects anew at once, after the cursor. */
  #connect = async () => {
    if (this.#state === "closed") return;
    const turn = this.#drop();
    this.#enter("connecting");
    this.#watch();
    try {
      const Source = await this.#sourceClass();
      if (Source === NativeSource && this.#asks && !(await this.#isWelcome(turn))) return;
      if (turn !== this.#turn) return;
      const request = { ...this.#options, types: this.#handlers.keys() };
      this.#source = new Source(this.#address(), request, this.#sink(turn));
    } catch (error) {
      // No network, or no module.
      if (turn === this.#turn) this.#fail({ reason: "lost", error });
    }
  };

  #address() {
    const url = new URL(this.#url);
    if (this.#channels.size) url.searchParams.set("channels", this.channels.join());
    if (this.#lastEventId) url.searchParams.set("last_event_id", this.#lastEventId);
    return url.href;
  }

  async #sourceClass() {
    const { EventSource, headers, token, method, body, tabs, transport } = this.#options;
    if (tabs) return (await import("./tabs/tab-source.js")).TabSource;
    const needs = headers || token || method || body || (this.#handlers.has("*") && !EventSource);
    if (transport === "fetch" || needs) return (await import("./sources/fetch.js")).FetchSource;
    return NativeSource;
  }

  /** EventSource does not say why it was refused: another request does. */
  async #isWelcome(turn) {
    // When not even this can be had, the server is down altogether: EventSource will tell.
    const { ask } = await import("./sources/refusal.js").catch(() => ({ ask: () => null }));
    const told = await ask(this.#address(), this.#options, this.#over.signal);
    if (told && turn === this.#turn) this.#fail(told);
    return !told;
  }

  #sink(turn) {
    const current = (does) => (...args) => turn === this.#turn && does(...args);
    return {
      event: current((type, text, id, channels) => this.#receive(turn, type, text, id, channels)),
      fail: current((told) => this.#fail(told)),
      retry: current((ms) => (this.#retry = ms)),
      // A source that is shared comes back by itself.
      state: current((state, detail) => (clearTimeout(this.#watchdog), this.#enter(state, detail))),
    };
  }

  #receive(turn, type, text, id, channels) {
    this.#watch();
    this.#stats.received += 1;
    this.#stats.bytes += text.length;
    const batch = type === "sse.batch" ? parsed(text) : [{ type, data: text, id, channels }];
    for (const { type, data, id, channels } of batch) {
      const message = { type: type ?? "message", data: parsed(data), lastEventId: id ?? "" };
      this.#queue(turn, channels ? { ...message, channels } : message);
    }
  }

  /** Inflating takes time, and what comes later must not overtake. */
  #queue(turn, message) {
    if (turn !== this.#turn) return;
    const packed = message.data?.compressed === true;
    if (!packed && !this.#waiting) return this.#deliver(message);
    if (this.#waiting++ >= MAX_WAITING) return this.#fail({ reason: "overflow" });
    const { maxInflated } = this.#options;
    const ready = packed ? import("./payload.js").then(({ unpack }) => unpack(message, maxInflated)) : message;
    this.#order = Promise.all([ready, this.#order]).then(
      () => turn === this.#turn && (this.#waiting--, this.#deliver(message)),
      (error) => turn === this.#turn && this.#fail({ reason: "lost", error }),
    );
  }

  #deliver(message) {
    const { type, data, lastEventId, broken } = message;
    if (lastEventId) this.#lastEventId = lastEventId;
    if (broken) return this.#complain({ reason: "payload", error: broken, lastEventId });
    this.#stats.lastEvent = { type, lastEventId, at: new Date().toISOString() };
    if (type === "sse.open") this.#begin(data);
    this.#tell(this.#handlers.get(type), message);
    this.#tell(this.#handlers.get("*"), message);
    if (type === "sse.close") this.#sentAway(data);
  }

  #tell(handlers, message) {
    for (const handler of [...(handlers ?? [])]) {
      try {
        handler(message);
      } catch (error) {
        reportError(error); // a broken handler must not keep the event from the others
      }
    }
  }

  #begin(opening) {
    this.#connection = opening;
    this.#opened = Date.now();
    this.#asks = false;
    if (globalThis.document && this.#options.page) this.#followed ??= this.#follow().catch(() => (this.#followed = null));
    if (this.#stats.connects++) this.#stats.reconnects += 1;
    this.#watch();
    this.#enter("open");
  }

  #fail({ reason, status, error, retryAfter = 0 }) {
    this.#complain({ reason, status, error });
    if (FINAL.includes(status)) return this.#end("closed", { reason, status, error });
    if (reason === "refused" && status === undefined && !this.#asks) {
      this.#asks = true;
      return this.#connect();
    }
    if (Date.now() - this.#opened > STEADY) this.#failures = 0;
    const detail = { reason, status, error };
    if (this.#failures < this.#options.maxRetries) this.#wait(detail, retryAfter + this.#jitter());
    else this.#end("closed", { ...detail, reason: "retries" });
  }

  #complain(detail) {
    this.#stats.errors += 1;
    this.dispatchEvent(new CustomEvent("error", { detail }));
  }

  #sentAway({ reason, reconnect, retry }) {
    if (this.#state === "closed") return;
    // The server has spread its clients over time already.
    if (reconnect) this.#wait({ reason }, retry);
    else this.#end("closed", { reason });
  }

  #wait(detail, delay) {
    this.#end("waiting", { ...detail, delay });
    if (!this.#suspended.size) this.#timer = setTimeout(this.#connect, delay);
  }

  /** Full jitter: clients that lost the same server come back spread over the whole time. */
  #jitter() {
    const { minDelay, maxDelay } = this.#options;
    const slow = /2g/.test(navigator.connection?.effectiveType) ? SLOWER : 1;
    return Math.random() * slow * Math.min(maxDelay, Math.max(minDelay, this.#retry) * 2 ** this.#failures++);
  }

  async #follow() {
    const { followPage } = await import("./page-lifecycle.js");
    const suspend = (reason) => {
      this.#suspended.add(reason);
      if (this.#state !== "closed") this.#end("waiting", { reason });
    };
    const resume = (reason) => {
      if (this.#suspended.delete(reason) && !this.#suspended.size) this.#connect();
    };
    followPage({ suspend, resume, save: this.#save, over: this.#over.signal }, this.#options.hiddenAfter);
  }

  close() {
    if (this.#state === "closed") return;
    this.#save();
    this.#end("closed");
  }

  /** (Re)starts the time in which the next event of any kind must come. */
  #watch() {
    clearTimeout(this.#watchdog);
    const silence = PATIENCE * (this.#connection?.heartbeat ?? HEARTBEAT) * 1000;
    // A longer timer would fire at once.
    this.#watchdog = setTimeout(() => this.#fail({ reason: "silent" }), Math.min(silence, 2 ** 31 - 1));
  }

  /** Lets go of the connection; returns the number of the next one. */
  #drop() {
    clearTimeout(this.#watchdog);
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#source = null;
    this.#waiting = 0;
    return ++this.#turn;
  }

  #end(state, detail) {
    this.#drop();
    this.#opened = Infinity;
    if (state === "closed") this.#over.abort();
    this.#enter(state, detail);
  }

  #enter(state, detail = {}) {
    const changed = state !== this.#state;
    this.#state = state;
    if (changed) this.dispatchEvent(new CustomEvent("statechange", { detail: { state, ...detail } }));
  }

  #save = () => {
    if (this.#options.remember) sessionStorage.setItem(`sse-push:${this.#url}`, this.#lastEventId);
  };
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
