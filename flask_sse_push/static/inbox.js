// @ts-check
/**
 * Keeps the order of events when some of them must be unpacked first: unpacking takes time, and a later event must
 * not overtake an earlier one. A connection gets an inbox with its first compressed event.
 * @import { PackedMessage, Sink } from "./sources/source.js"
 */

import { decompress } from "./payload.js";

/** Limit on the messages that wait because they, or an earlier message, must be unpacked. */
const MAX_WAITING = 1000;

export class Inbox {
  #sink;
  #maxInflated;
  #waiting = 0;
  #last = Promise.resolve(); // settles when the last message has been delivered

  /**
   * @param {Pick<Sink, "deliver" | "fail">} sink
   * @param {number} [maxInflated] Bytes of text a compressed event may hold.
   */
  constructor(sink, maxInflated) {
    this.#sink = sink;
    this.#maxInflated = maxInflated;
  }

  /**
   * Delivers a message after all messages before it.
   * @param {PackedMessage} message
   */
  add(message) {
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
   * Replaces an envelope in `data` by its content, or sets `broken`. Leaves other data as it is.
   * @param {PackedMessage} message
   */
  async #unpack(message) {
    try {
      message.data = await decompress(message.data, this.#maxInflated);
    } catch (error) {
      message.broken = /** @type {Error} */ (error);
    }
  }
}
