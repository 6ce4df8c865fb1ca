/** A connection by the browser's EventSource, which does the reading only: it is never left to reconnect. */

export class NativeSource {
  #source;
  #receive;

  constructor(url, { EventSource = globalThis.EventSource, withCredentials, types }, sink) {
    this.#source = new EventSource(url, { withCredentials });
    // An event of the app may be named "open" or "error" as the browser's own are; only the app's have data.
    this.#receive = ({ type, data, lastEventId }) => data !== undefined && sink.event(type, data, lastEventId);
    this.#source.addEventListener("error", ({ data }) => {
      // [spec] "fail the connection" leaves CLOSED, "reestablish the connection" leaves CONNECTING.
      if (data === undefined) sink.fail({ reason: this.#source.readyState === 2 ? "refused" : "lost" });
    });
    for (const type of types) this.listen(type);
  }

  /** EventSource shows only types that somebody asked for. */
  listen(type) {
    this.#source.addEventListener(type, this.#receive);
  }

  close() {
    this.#source.close();
  }
}
