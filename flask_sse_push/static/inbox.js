// @ts-check
/**
 * Takes batches apart, and unpacks compressed events. It keeps their order: decompression takes time, and a later event
 * must not overtake an earlier event. A connection gets an inbox when its first such event arrives.
 * @import { PackedMessage, RawEvent, Sink } from "./sources/source.js"
 */

import { inflate, isEnvelope, PayloadError } from "./payload.js";

/** At most how many messages may wait because they, or an earlier message, must be decompressed. */
const MAX_WAITING = 1000;

export class Inbox {
  #sink;
  #messageOf;
  #maxInflated;
  #waiting = 0;
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
    for (const event of message.data) this.#add(this.#messageOf(event));
  }

  /** @param {PackedMessage} message */
  #add(message) {
    if (!this.#waiting && !isEnvelope(message.data)) return this.#sink.deliver(message);
    if (this.#waiting >= MAX_WAITING) return this.#sink.fail({ reason: "overflow" });
    this.#waiting += 1;
    const before = this.#last;
    const unpacked = this.#unpack(message);
    this.#last = Promise.all([unpacked, before]).then(() => {
      this.#waiting -= 1;
      this.#sink.deliver(message);
    });
  }

  /**
   * Replaces an envelope by its content, or sets `skipped` to the reason. Leaves other messages as they are.
   * @param {PackedMessage} message
   */
  async #unpack(message) {
    if (!isEnvelope(message.data)) return;
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
