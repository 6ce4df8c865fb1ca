// @ts-check
/**
 * One connection by the browser's EventSource. PushClient closes it at its first error, so it never reconnects.
 * @import * as T from "./source.js"
 */

/** Longer addresses are for `fetch.js`, which sends a POST: servers refuse more than about 4,000 characters. */
export const MAX_URL = 2000;

/** @implements {T.Source} */
export class Source {
  #source;
  #receive;

  /** @param {string} url @param {T.SourceOptions} options @param {T.Sink} sink */
  constructor(url, { EventSource = globalThis.EventSource, withCredentials, types }, sink) {
    this.#source = new EventSource(url, { withCredentials });
    // Only the app's events have data, also those that it calls "open" or "error" as the browser calls its own.
    this.#receive = (/** @type {MessageEvent} */ { type, data, lastEventId: id }) => {
      if (data !== undefined) sink.event({ type, data, id });
      // [spec] "fail the connection" leaves CLOSED, "reestablish the connection" leaves CONNECTING.
      else if (type === "error") sink.fail({ reason: this.#source.readyState === 2 ? "refused" : "lost" });
    };
    for (const type of ["error", ...types.keys()]) this.listen(type);
  }

  /** EventSource needs a listener for each type. @param {string} type */
  listen(type) {
    this.#source.addEventListener(type, this.#receive);
  }

  close() {
    this.#source.close();
  }
}
