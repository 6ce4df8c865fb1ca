// @ts-check
/**
 * One connection by EventSource. It never reconnects: PushClient closes it at its first error.
 * @import * as T from "./source.js"
 */

/** Characters. Servers refuse longer addresses. */
export const MAX_URL = 2000;

/** @implements {T.Source} */
export class Source {
  #source;
  #receive;
  /** @type {"" | undefined} */ #noId; // "" after the first id
  #timer;

  /** @param {string} url @param {T.Options} options @param {T.Sink} sink */
  constructor(url, { EventSource = globalThis.EventSource, withCredentials, openTimeout = 5e3 }, sink) {
    this.#source = new EventSource(url, { withCredentials });
    this.#timer = setTimeout(() => sink.fail({ reason: "silent" }), Math.min(openTimeout, 1e9));
    // Only the app's events have data, even if it calls them "open" or "error".
    this.#receive = (/** @type {MessageEvent} */ { type, data, lastEventId }) => {
      clearTimeout(this.#timer);
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
    clearTimeout(this.#timer);
    this.#source.close();
  }
}
