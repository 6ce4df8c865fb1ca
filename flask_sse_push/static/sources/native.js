// @ts-check
/**
 * One connection by EventSource. PushClient closes it at its first error, so it never reconnects.
 * @import * as T from "./source.js"
 */

/** At most how many characters the address of a GET may have, since servers refuse long addresses. */
export const MAX_URL = 2000;

/** @implements {T.Source} */
export class Source {
  #source;
  #receive;
  /** @type {"" | undefined} */ #noId; // no id yet, or an empty id

  /** @param {string} url @param {T.Options} options @param {T.Sink} sink */
  constructor(url, { EventSource = globalThis.EventSource, withCredentials }, sink) {
    this.#source = new EventSource(url, { withCredentials });
    // Only the app's events have data, even if it calls them "open" or "error".
    this.#receive = (/** @type {MessageEvent} */ { type, data, lastEventId }) => {
      if (lastEventId) this.#noId = "";
      if (data !== undefined) sink.event({ type, data, id: lastEventId || this.#noId });
      else if (type === "error") sink.fail({ reason: this.#source.readyState === 2 ? "refused" : "lost" });
    };
    for (const type of ["error", ...sink.types.keys()]) this.listen(type);
  }

  /** @param {string} type */
  listen(type) {
    this.#source.addEventListener(type, this.#receive);
  }

  close() {
    this.#source.close();
  }
}
