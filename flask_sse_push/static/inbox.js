// @ts-check
/**
 * Takes batches apart, and unpacks compressed events. It keeps their order: decompression takes time, and a later event
 * must not overtake an earlier event. A connection gets an inbox when its first such event arrives.
 * @import { PackedMessage, RawEvent, Sink } from "./sources/source.js"
 */

import { inflate, isEnvelope, PayloadError } from "./payload.js";

/** At most how many messages may wait because they, or an earlier message, must be decompressed. */
const MAX_WAITING = 1000;

/** At most how many characters of text the waiting messages may have together. A single message may have more. */
const MAX_TEXT = 32_000_000;

/** The end of an envelope that the server has packed. Without it, data that looks like an envelope is ordinary data. */
const PACKED = "\t\t";

export class Inbox {
  #sink;
  #messageOf;
  #maxInflated;
  #waiting = 0;
  #size = 0; // how many characters of text the waiting messages have
  #stopped = false; // whether the connection has ended
  #last = Promise.resolve(); // settles when the last message has been delivered

  /**
   * @param {Pick<Sink, "deliver" | "fail">} sink
   * @param {(event: RawEvent) => PackedMessage} messageOf Makes a message from one event of a batch or of an envelope.
   * @param {number} [maxInflated] At most how many bytes of text a compressed event may have.
   */
  constructor(sink, messageOf, maxInflated) {
    this.#sink = sink;
    this.#messageOf = messageOf;
    this.#maxInflated = maxInflated;
  }

  /**
   * Delivers a message after all messages before it; the events of a batch one by one.
   * @param {PackedMessage} message
   */
  add(message) {
    if (message.type !== "sse.batch") return this.#add(message);
    const members = Array.isArray(message.data) ? message.data : [null];
    for (const event of members) {
      if (event?.traceparent) globalThis.dispatchEvent?.(new CustomEvent("sse-push:traced", { detail: event }));
      this.#add(isEvent(event) ? this.#messageOf(event) : broken(message));
    }
  }

  /** @param {PackedMessage} message */
  #add(message) {
    if (!this.#waiting && !isPacked(message)) return void this.#sink.deliver(message);
    const { length } = message.text;
    const isTooMuch = this.#waiting >= MAX_WAITING || (this.#waiting && this.#size + length > MAX_TEXT);
    if (isTooMuch) return this.#sink.fail({ reason: "overflow" });
    this.#waiting += 1;
    this.#size += length;
    // Unpacks one message after another, because a small envelope may hold a lot of text.
    this.#last = this.#last.then(async () => {
      if (!this.#stopped) await this.#unpack(message);
      this.#waiting -= 1;
      this.#size -= length;
      this.#stopped ||= this.#sink.deliver(message) === false;
    });
  }

  /**
   * Replaces an envelope by its content, or sets `skipped` to the reason. Leaves other messages as they are.
   * @param {PackedMessage} message
   */
  async #unpack(message) {
    if (!isPacked(message)) return;
    try {
      const unpacked = await inflate(message.data.data, this.#maxInflated);
      const { data, text } = this.#messageOf({ type: message.type, data: unpacked });
      Object.assign(message, { data, text });
    } catch (error) {
      const failure = /** @type {PayloadError} */ (error);
      message.skipped = { reason: "payload", size: failure.size, error: failure };
    }
  }
}

/** @param {PackedMessage} message */
const isPacked = ({ skipped, text, data }) => !skipped && text.endsWith(PACKED) && isEnvelope(data);

/** Whether a member of a batch is an event, as docs/protocol.md describes it. @param {any} event @returns {event is RawEvent} */
function isEvent(event) {
  const isText = (/** @type {unknown} */ value) => value === undefined || typeof value === "string";
  return typeof event?.data === "string" && isText(event.type) && isText(event.id);
}

/** Stands for an event that cannot be read. @param {PackedMessage} batch @returns {PackedMessage} */
function broken({ type, text, lastEventId }) {
  const error = new PayloadError("the server sent a batch that cannot be read");
  return { type, data: null, text, lastEventId, skipped: { reason: "payload", error } };
}
