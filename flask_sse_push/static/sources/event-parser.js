// @ts-check
/**
 * Parses the event stream format (WHATWG HTML, section 9.2.6) from text that arrives in pieces of any size.
 * @import { Sink } from "./source.js"
 */

/** At most how many characters the data of one event may have; the protocol's own events may always have as many. */
export const MAX_SIZE = 16_000_000;

/** Tells `client/report.js`, if the page uses it, that an event is traced. @param {object} detail Its id, type and context. */
const tellTraced = (detail) => globalThis.dispatchEvent?.(new CustomEvent("sse-push:traced", { detail }));

/** A line with at most this many characters is kept, however small the limit on the data is. */
const SHORT_LINE = 1000;

/** How many characters of a line that is too long are kept: enough for the name of its field. */
const HEAD = 20;

export class EventParser {
  #line = ""; // the beginning of a line whose end has not arrived
  #length = 0; // how many characters of the line have arrived, also those that are not kept in `#line`
  #started = false;
  #endedWithReturn = false; // the last piece ended with CR; a LF at the start of the next piece is the same line end
  #size = 0; // characters in the data of the event
  #tooLarge = false;
  #type = "";
  /** @type {string[]} */
  #data = [];
  /** @type {string[] | undefined} */
  #channels;
  #id;
  #lastId;
  #maxSize;
  #sink;

  /**
   * @param {Pick<Sink, "event"> & { retry?: (ms: number) => void }} sink Events before the first `id:` line have no id.
   * @param {{ maxSize?: number, lastId?: string }} [options] `maxSize`: at most how many characters the data of one
   *   event may have. A larger event is skipped. `lastId`: the id of events before the first `id:` line.
   */
  constructor(sink, { maxSize = MAX_SIZE, lastId } = {}) {
    this.#sink = sink;
    this.#maxSize = maxSize;
    this.#lastId = this.#id = lastId;
  }

  /** @param {string} text The next piece of the stream. */
  feed(text) {
    if (!text) return;
    if (!this.#started) {
      this.#started = true;
      // [spec] "strip one leading U+FEFF BYTE ORDER MARK, if any"
      if (text[0] === "\ufeff") text = text.slice(1);
    }
    if (this.#endedWithReturn && text[0] === "\n") text = text.slice(1);
    this.#endedWithReturn = text.endsWith("\r");
    const lines = text.split(/\r\n|\r|\n/);
    const unfinished = /** @type {string} */ (lines.pop());
    for (const line of lines) {
      this.#append(line);
      const [whole, length] = [this.#line, this.#length];
      this.#line = "";
      this.#length = 0;
      this.#read(whole, length);
    }
    this.#append(unfinished);
  }

  /** At most how many characters the data of the current event may have. */
  get #limit() {
    return this.#type.startsWith("sse.") ? Math.max(this.#maxSize, MAX_SIZE) : this.#maxSize;
  }

  /** @param {string} text The next part of the current line. */
  #append(text) {
    this.#length += text.length;
    this.#line += text;
    if (this.#length > Math.max(SHORT_LINE, this.#limit + "data: ".length)) this.#line = this.#line.slice(0, HEAD);
  }

  /** @param {string} line @param {number} length */
  #read(line, length) {
    if (line === "") return this.#dispatch();
    const colon = line.indexOf(":");
    if (colon === 0) return; // a comment
    const field = colon < 0 ? line : line.slice(0, colon);
    const start = colon < 0 ? line.length : line[colon + 1] === " " ? colon + 2 : colon + 1;
    const value = line.slice(start);
    if (field === "data") this.#add(value, length - start);
    else if (length > line.length) this.#tooLarge ||= field === "event"; // an id that is too long counts as none
    else if (field === "event") this.#type = value;
    else if (field === "id" && !value.includes("\0")) this.#id = value;
    else if (field === "channel") this.#channels = value.split(",");
    else if (field === "traceparent") tellTraced({ id: this.#id, type: this.#type, traceparent: value });
    else if (field === "retry" && /^\d+$/.test(value)) this.#sink.retry?.(Number(value));
  }

  /** @param {string} value @param {number} length */
  #add(value, length) {
    const lineEnd = this.#data.length || this.#tooLarge ? 1 : 0;
    this.#size += lineEnd + length;
    if (this.#size > this.#limit) this.#tooLarge = true;
    if (this.#tooLarge) this.#data = [];
    else this.#data.push(value);
  }

  #dispatch() {
    const head = { type: this.#type || "message", id: this.#id, channels: this.#channels };
    const [lines, size, tooLarge, moved] = [this.#data, this.#size, this.#tooLarge, this.#id !== this.#lastId];
    // [spec] The last event ID is set before the check that the data buffer is empty.
    this.#lastId = this.#id;
    this.#size = 0;
    this.#tooLarge = false;
    this.#type = "";
    this.#data = [];
    this.#channels = undefined;
    if (tooLarge) this.#sink.event({ ...head, data: "", skipped: { reason: "too large", size } });
    else if (lines.length) this.#sink.event({ ...head, data: lines.join("\n") });
    else if (moved) this.#sink.event({ ...head, data: "", skipped: {} });
  }
}
