/** The event stream format (WHATWG HTML, section 9.2.6), fed with text in pieces of any size. Knows no network. */

/** Characters one line, or the data of one event, may have. */
export const MAX_SIZE = 16_000_000;

/** An event is bigger than it may be: the stream cannot go on. */
export class EventTooLarge extends RangeError {
  name = "EventTooLarge";
}

export class EventParser {
  #rest = ""; // the line under way
  #begun = false;
  #afterReturn = false; // the last piece ended with CR: a LF that follows belongs to it
  #size = 0;
  #type = "";
  #data = [];
  #channels;
  #id = "";
  #lastId;
  #maxSize;
  #on;

  /**
   * @param {object} on `event(type, data, lastEventId, channels)`, `retry(ms)`.
   * @param {string} [lastId] What events without an id of their own carry.
   */
  constructor(on, { maxSize = MAX_SIZE, lastId = "" } = {}) {
    this.#on = on;
    this.#maxSize = maxSize;
    this.#lastId = this.#id = lastId;
  }

  /** @throws {EventTooLarge} when a line or an event is too big. */
  feed(text) {
    if (!text) return;
    if (!this.#begun) {
      this.#begun = true;
      if (text[0] === "\ufeff") text = text.slice(1); // [spec] one leading BOM is stripped
    }
    if (this.#afterReturn && text[0] === "\n") text = text.slice(1);
    this.#afterReturn = text.endsWith("\r");
    const lines = text.split(/\r\n|\r|\n/);
    const last = lines.pop();
    for (const line of lines) {
      const whole = this.#rest + line;
      this.#rest = "";
      this.#read(whole);
    }
    this.#rest += last;
    if (this.#size + this.#rest.length > this.#maxSize) this.#refuse();
  }

  #refuse() {
    throw new EventTooLarge(`an event has more than ${this.#maxSize} characters`);
  }

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
    else if (field === "retry" && /^\d+$/.test(value)) this.#on.retry?.(Number(value));
  }

  #add(value) {
    this.#size += value.length + 1;
    if (this.#size > this.#maxSize) this.#refuse();
    this.#data.push(value);
  }

  #dispatch() {
    const type = this.#type || "message";
    const data = this.#data;
    const channels = this.#channels;
    this.#lastId = this.#id; // [spec] also when there is no data
    this.#size = 0;
    this.#type = "";
    this.#data = [];
    this.#channels = undefined;
    if (data.length) this.#on.event(type, data.join("\n"), this.#lastId, channels);
  }
}
