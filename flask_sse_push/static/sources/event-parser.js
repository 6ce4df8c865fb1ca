// @ts-check
/**
 * Parses the event stream format (WHATWG HTML, section 9.2.6) from text that arrives in pieces of any size.
 * @import { Sink } from "./source.js"
 */

/** At most how many characters one line, and the data of one event, may have. */
export const MAX_SIZE = 16_000_000;

/** An event is larger than the limit; the stream cannot be read any further. */
export class EventTooLarge extends RangeError {
  name = "EventTooLarge";
}

export class EventParser {
  #line = ""; // the beginning of a line whose end has not arrived
  #started = false;
  #endedWithReturn = false; // the last piece ended with CR; a LF at the start of the next piece is the same line end
  #size = 0;
  #type = "";
  /** @type {string[]} */
  #data = [];
  /** @type {string[] | undefined} */
  #channels;
  #id = "";
  #lastId;
  #maxSize;
  #sink;

  /**
   * @param {Pick<Sink, "event"> & Partial<Pick<Sink, "retry">>} sink
   * @param {{ maxSize?: number, lastId?: string }} [options] `lastId` is the id of events before the first `id:` line.
   */
  constructor(sink, { maxSize = MAX_SIZE, lastId = "" } = {}) {
    this.#sink = sink;
    this.#maxSize = maxSize;
    this.#lastId = this.#id = lastId;
  }

  /**
   * @param {string} text The next piece of the stream.
   * @throws {EventTooLarge} A line or an event is larger than the limit.
   */
  feed(text) {
    if (!text) return;
    if (!this.#started) {
      this.#started = true;
      // [spec] "strip one leading U+FEFF BYTE ORDER MARK, if any"
      if (text[0] === "\ufeff") text = text.slice(1);
    }
    if (this.#endedWithReturn && text[0] === "\n") text = text.slice(1);
    this.#endedWithReturn = text.endsWith("\r");
    const [first, ...others] = text.split(/\r\n|\r|\n/);
    const lines = [this.#line + first, ...others];
    this.#line = lines[lines.length - 1];
    for (const line of lines.slice(0, -1)) this.#read(line);
    if (this.#size + this.#line.length > this.#maxSize) this.#refuse();
  }

  #refuse() {
    throw new EventTooLarge(`an event has more than ${this.#maxSize} characters`);
  }

  /** @param {string} line */
  #read(line) {
    if (line === "") return this.#dispatch();
    const colon = line.indexOf(":");
    if (colon === 0) return; // a comment
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    if (field === "data") this.#add(value);
    else if (field === "event") this.#type = value;
    else if (field === "id" && !value.includes("\0")) this.#id = value;
    else if (field === "channel") this.#channels = value.split(",");
    else if (field === "retry" && /^\d+$/.test(value)) this.#sink.retry?.(Number(value));
  }

  /** @param {string} value */
  #add(value) {
    this.#size += value.length + 1;
    if (this.#size > this.#maxSize) this.#refuse();
    this.#data.push(value);
  }

  #dispatch() {
    const type = this.#type || "message";
    const lines = this.#data;
    const channels = this.#channels;
    // [spec] The last event ID is set before the check that the data buffer is empty.
    this.#lastId = this.#id;
    this.#size = 0;
    this.#type = "";
    this.#data = [];
    this.#channels = undefined;
    if (lines.length) this.#sink.event({ type, data: lines.join("\n"), id: this.#lastId, channels });
  }
}
