// @ts-check
/**
 * Measures how long events take from the broker to the handlers of this page, for a sample of the events. An event's id
 * has the broker's time at which the event was stored. `sse.open` has the broker's time too, so the page knows how far
 * its own clock is from the broker's.
 * @import { PushClient } from "./push-client.js"
 */

/** Milliseconds between two looks at the newest event. Each look measures at most one event. */
const LOOK = 1000;

/** At most how many times are kept for the next report. Of more, each has the same chance to be kept. */
const MAX_TIMES = 50;

/** At most how many traced events are waited for, and at most how many go into a report. */
const MAX_TRACES = 5;

/** At most for how many types of traced events the sampler listens. */
const MAX_TYPES = 100;

/** The longest time that the server accepts, in milliseconds. */
const LONGEST = 600_000;

/** The id of an event on one shard: an epoch, and microseconds in base 36. Ids of several shards have another form. */
const ID = /^[a-z0-9]+-([0-9a-z]{1,12})$/;

export class LatencySampler {
  #client;
  /** @type {number[]} */ #times = [];
  #measured = 0; // since the last report
  #connecting = Date.now();
  /** @type {number | undefined} */ #offset; // milliseconds to add to this page's clock to get the broker's
  #openedAt = 0; // by the broker's clock; events from before are missed events, and no deliveries
  #lastId = "";
  #timer;
  /** @type {Map<string, string>} */ #traced = new Map(); // traceparent by id, of events whose handlers will be called
  /** @type {Set<string>} */ #types = new Set(); // of these events
  /** @type {[string, number, number][]} */ #handled = []; // traceparent, when the broker had the event, when the handler
  #onTrace;

  /** @param {PushClient} client @param {() => void} onTrace Called when `takeTraces` has something. */
  constructor(client, onTrace = () => {}) {
    this.#client = client;
    this.#onTrace = onTrace;
    globalThis.addEventListener?.("sse-push:traced", this.#onTraced);
    client.addEventListener("statechange", this.#onState);
    client.on("sse.open", this.#onOpen);
    this.#timer = setInterval(this.#look, LOOK);
  }

  /** Returns the measured times in whole milliseconds, and forgets them. */
  take() {
    const times = this.#times;
    this.#times = [];
    this.#measured = 0;
    return times;
  }

  /** Returns what is to be reported of traced events, and forgets it. */
  takeTraces() {
    return this.#handled.splice(0);
  }

  stop() {
    globalThis.removeEventListener?.("sse-push:traced", this.#onTraced);
    for (const type of this.#types) this.#client.off(type, this.#onEvent);
    this.#client.removeEventListener("statechange", this.#onState);
    this.#client.off("sse.open", this.#onOpen);
    clearInterval(this.#timer);
  }

  #onState = (/** @type {Event} */ event) => {
    if (/** @type {CustomEvent} */ (event).detail.state === "connecting") this.#connecting = Date.now();
  };

  /** A tab that begins to use the connection of another tab gets no `time`, but knows the offset already. */
  #onOpen = (/** @type {{ data: { time?: unknown } | null }} */ { data }) => {
    const now = Date.now();
    const time = data?.time;
    if (typeof time === "number") this.#offset = offsetOf(time, this.#connecting, now);
    this.#openedAt = now + (this.#offset ?? 0);
    this.#lastId = this.#client.lastEventId;
  };

  #look = () => {
    const last = this.#client.stats.lastEvent;
    if (!last || this.#offset === undefined || last.lastEventId === this.#lastId || last.type.startsWith("sse.")) return;
    this.#lastId = last.lastEventId;
    const storedAt = brokerTime(last.lastEventId);
    if (storedAt > this.#openedAt) this.#keep(Date.parse(last.at) + this.#offset - storedAt);
  };

  /** The source of the events tells that one is traced, before its handlers are called. */
  #onTraced = (/** @type {Event} */ event) => {
    const { id, type, traceparent } = /** @type {CustomEvent} */ (event).detail;
    if (!id || this.#types.size >= MAX_TYPES) return;
    for (const [oldest] of this.#traced) if (this.#traced.size >= MAX_TRACES) this.#traced.delete(oldest);
    this.#traced.set(id, traceparent);
    this.#types.add(type || "message");
    this.#client.on(type || "message", this.#onEvent); // not "*", which would change how the client connects
  };

  #onEvent = (/** @type {{ lastEventId: string }} */ { lastEventId }) => {
    const traceparent = this.#traced.get(lastEventId);
    const storedAt = brokerTime(lastEventId);
    this.#traced.delete(lastEventId);
    if (!traceparent || !(storedAt > this.#openedAt) || this.#handled.length >= MAX_TRACES) return;
    this.#handled.push([traceparent, Math.round(storedAt), Math.round(Date.now() + (this.#offset ?? 0))]);
    this.#onTrace();
  };

  /** @param {number} time */
  #keep(time) {
    const rounded = Math.round(Math.min(Math.max(time, 0), LONGEST));
    this.#measured += 1;
    const place = this.#times.length < MAX_TIMES ? this.#times.length : Math.floor(Math.random() * this.#measured);
    if (place < MAX_TIMES) this.#times[place] = rounded;
  }
}

/** When the broker stored the event with this id, in milliseconds since 1970; NaN for an id of another form. */
const brokerTime = (/** @type {string} */ id) => parseInt(ID.exec(id)?.[1] ?? "", 36) / 1000;

/**
 * Returns how far the broker's clock is ahead of this page's clock, in milliseconds.
 *
 * The broker's clock had the time between the start of the request and the arrival of the answer. If both clocks can be
 * equal, they count as equal: then a network that holds answers back does not falsify the offset. If not, the middle is
 * taken, which is wrong by at most half of the time that the answer took.
 * @param {number} time The broker's time.
 * @param {number} asked This page's time when the request began.
 * @param {number} answered This page's time when the answer came.
 */
function offsetOf(time, asked, answered) {
  const [least, most] = [time - answered, time - asked];
  return least <= 1 && most >= -1 ? 0 : (least + most) / 2; // clocks of pages count whole milliseconds
}
