// @ts-check
/**
 * One connection by the browser's EventSource. PushClient closes it at its first error, so it never reconnects.
 * @import * as T from "./source.js"
 */

/** @implements {T.Source} */
export class NativeSource {
  #source;
  #receive;

  /** @param {string} url @param {T.SourceOptions} options @param {T.Sink} sink */
  constructor(url, { EventSource = globalThis.EventSource, withCredentials, types }, sink) {
    this.#source = new EventSource(url, { withCredentials });
    // Events of the app may have the names "open" and "error" of the browser's events. Only the app's events have data.
    this.#receive = (/** @type {MessageEvent} */ { type, data, lastEventId: id }) =>
      data !== undefined && sink.event({ type, data, id });
    this.#source.addEventListener("error", (/** @type {{ data?: string }} */ { data }) => {
      // [spec] "fail the connection" leaves CLOSED, "reestablish the connection" leaves CONNECTING.
      if (data === undefined) sink.fail({ reason: this.#source.readyState === 2 ? "refused" : "lost" });
    });
    for (const type of types.keys()) this.listen(type);
  }

  /** EventSource needs a listener for each type. @param {string} type */
  listen(type) {
    this.#source.addEventListener(type, this.#receive);
  }

  close() {
    this.#source.close();
  }
}
