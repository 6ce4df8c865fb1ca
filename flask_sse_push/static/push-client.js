/**
 * Server-Sent Events that come back by themselves and miss nothing.
 *
 *     import { PushClient } from "/stream/client/push-client.js";
 *     const client = new PushClient("/stream?channels=news,user:7");
 *     client.on("price", ({ data }) => show(data));
 *     client.on("sse.reset", ({ data }) => fetchAgain(data.channels));
 *     client.addEventListener("statechange", ({ detail }) => showState(detail.state));
 *
 * The browser's EventSource does the reading; the reconnecting is done here, because EventSource gives up
 * for good on any answer but 200, a proxy's 502 during a deploy included.
 *
 * @typedef {"connecting" | "open" | "waiting" | "closed"} State
 *
 * @typedef {object} Message What a handler gets.
 * @property {string} type "message" for untyped events.
 * @property {any} data Parsed when it is JSON, else the text as it came.
 * @property {string} lastEventId The cursor of this event.
 *
 * @typedef {object} StateChange The `detail` of a "statechange" event.
 * @property {State} state The new state.
 * @property {"lost" | "refused" | "silent" | string} [reason] Why it waits or has closed: the network
 *   failed, the server answered something else than a stream, nothing came for too long, or the reason the
 *   server gave in `sse.close`.
 * @property {number} [delay] Milliseconds until the next attempt.
 *
 * @typedef {object} Options
 * @property {string} [lastEventId] The cursor to begin after; "earliest" asks for all kept history.
 * @property {boolean} [withCredentials] Send cookies to another origin too. Default: false.
 * @property {number} [minDelay] Upper bound of the first random delay, in ms. Default: 1000.
 * @property {number} [maxDelay] Upper bound of all delays, in ms. Default: 30000.
 * @property {typeof EventSource} [EventSource] What opens the streams. Default: the browser's.
 */

/** Types heard with or without a handler: the protocol's own carry cursors and tell how to go on. */
const ALWAYS_HEARD = ["message", "sse.open", "sse.reset", "sse.heartbeat", "sse.close", "sse.error"];

/** How many heartbeats may fail to come before the line counts as dead. */
const PATIENCE = 2.5;

/** Seconds between heartbeats until `sse.open` has told them: the server's default. */
const HEARTBEAT = 15;

/** Milliseconds a stream must hold before the next failure counts as the first one again. */
const STEADY = 5000;

/** One stream, over as many connections as it takes. Fires "statechange". */
export class PushClient extends EventTarget {
  /** @type {URL} */ #url;
  /** @type {Options} */ #options;
  /** @type {Map<string, Set<(message: Message) => void>>} */
  #handlers = new Map(ALWAYS_HEARD.map((type) => [type, new Set()]));
  /** @type {EventSource | null} */ #source = null;
  /** @type {State} */ #state = "connecting";
  #lastEventId = "";
  #silence = PATIENCE * HEARTBEAT * 1000;
  #failures = 0;
  #openedAt = Infinity;
  #watchdog = 0;
  #retry = 0;

  /**
   * Connects at once.
   * @param {string | URL} url The stream, with its channels, relative to the page.
   * @param {Options} [options]
   */
  constructor(url, options = {}) {
    super();
    this.#url = new URL(url, globalThis.document?.baseURI);
    this.#options = { minDelay: 1000, maxDelay: 30000, withCredentials: false, ...options };
    this.#lastEventId = options.lastEventId ?? "";
    this.#connect();
  }

  /** @returns {State} "waiting" is between two attempts; "closed" is for good. */
  get state() {
    return this.#state;
  }

  /** The cursor of the newest event heard; a stream that begins after it misses nothing. */
  get lastEventId() {
    return this.#lastEventId;
  }

  /**
   * Calls `handler` for each event of a type. The stream's own events ("sse.open", "sse.reset", …) can be
   * heard the same way. An event of a type nobody listens to is not seen at all.
   * @param {string} type "message" for untyped events.
   * @param {(message: Message) => void} handler
   * @returns {this}
   */
  on(type, handler) {
    let handlers = this.#handlers.get(type);
    if (!handlers) {
      this.#handlers.set(type, (handlers = new Set()));
      this.#source?.addEventListener(type, this.#receive);
    }
    handlers.add(handler);
    return this;
  }

  /**
   * Takes back an `on`.
   * @param {string} type
   * @param {(message: Message) => void} handler
   * @returns {this}
   */
  off(type, handler) {
    // The native listener stays: it keeps the cursor and the watchdog up to date.
    this.#handlers.get(type)?.delete(handler);
    return this;
  }

  /** Ends the stream for good. */
  close() {
    this.#end("closed");
  }

  // -- one connection ---------------------------------------------------------------------------------

  #connect = () => {
    const url = new URL(this.#url);
    if (this.#lastEventId) url.searchParams.set("last_event_id", this.#lastEventId);
    const Source = this.#options.EventSource ?? EventSource;
    const source = new Source(url.href, { withCredentials: this.#options.withCredentials });
    source.addEventListener("error", this.#fail);
    for (const type of this.#handlers.keys()) source.addEventListener(type, this.#receive);
    this.#source = source;
    this.#watch();
    this.#enter("connecting");
  };

  /** @param {Event} event */
  #receive = (event) => {
    // An event of ours may be named "open" or "error" as the browser's own are; only ours have data.
    if (event.target !== this.#source || !(event instanceof MessageEvent)) return;
    this.#watch();
    if (event.lastEventId) this.#lastEventId = event.lastEventId;
    const message = { type: event.type, data: parsed(event.data), lastEventId: event.lastEventId };
    if (event.type === "sse.open") this.#opened(message.data);
    this.#tell(message);
    if (event.type === "sse.close") this.#sentAway(message.data);
  };

  /** @param {Message} message */
  #tell(message) {
    for (const handler of [...(this.#handlers.get(message.type) ?? [])]) {
      try {
        handler(message);
      } catch (error) {
        // One broken handler must not keep the event from the others; the page's error log gets it.
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }

  /** @param {{heartbeat: number}} opening */
  #opened({ heartbeat }) {
    this.#silence = PATIENCE * heartbeat * 1000;
    this.#openedAt = Date.now();
    this.#watch();
    this.#enter("open");
  }

  // -- between two connections ------------------------------------------------------------------------

  /** @param {Event} event */
  #fail = (event) => {
    const source = this.#source;
    if (event.target !== source || event instanceof MessageEvent) return;
    // [spec] "fail the connection" leaves CLOSED, "reestablish the connection" leaves CONNECTING.
    this.#wait(source?.readyState === 2 ? "refused" : "lost");
  };

  /** @param {{reason: string, reconnect: boolean, retry: number}} goodbye */
  #sentAway({ reason, reconnect, retry }) {
    if (this.#state === "closed") return;
    if (reconnect) this.#wait(reason, retry);
    else this.#end("closed", { reason });
  }

  /**
   * @param {string} reason
   * @param {number} [delay] Told by the server, which has spread its clients already.
   */
  #wait(reason, delay) {
    if (Date.now() - this.#openedAt > STEADY) this.#failures = 0;
    this.#openedAt = Infinity;
    if (delay === undefined) {
      const { minDelay, maxDelay } = this.#options;
      // Full jitter: clients that lost the same server come back spread over the whole time.
      delay = Math.random() * Math.min(maxDelay, minDelay * 2 ** this.#failures);
      this.#failures += 1;
    }
    this.#end("waiting", { reason, delay });
    this.#retry = setTimeout(this.#connect, delay);
  }

  /** (Re)starts the time in which the next event of any kind must come. */
  #watch() {
    clearTimeout(this.#watchdog);
    this.#watchdog = setTimeout(() => this.#wait("silent"), this.#silence);
  }

  /**
   * @param {State} state
   * @param {Partial<StateChange>} [detail]
   */
  #end(state, detail) {
    clearTimeout(this.#watchdog);
    clearTimeout(this.#retry);
    this.#source?.close();
    this.#source = null;
    this.#enter(state, detail);
  }

  /**
   * @param {State} state
   * @param {Partial<StateChange>} [detail]
   */
  #enter(state, detail = {}) {
    const changed = state !== this.#state;
    this.#state = state;
    if (changed) this.dispatchEvent(new CustomEvent("statechange", { detail: { state, ...detail } }));
  }
}

/** @param {string} data */
function parsed(data) {
  try {
    return JSON.parse(data);
  } catch {
    return data;
  }
}
