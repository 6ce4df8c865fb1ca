// @ts-check
/**
 * EventSource does not say why the server refused it. This source first requests the stream by fetch: it reports the
 * refusal if there is one, and opens an EventSource otherwise.
 * @import { Sink, Source, SourceOptions } from "./source.js"
 */

import { NativeSource } from "./native.js";
import { isStream, refusal } from "./refusal.js";

/** @implements {Source} */
export class CheckedSource {
  #stop = new AbortController();
  /** @type {NativeSource | null} */
  #source = null;

  /** @param {string} url @param {SourceOptions} options @param {Sink} sink */
  constructor(url, options, sink) {
    this.#open(url, options, sink).catch((error) => sink.fail({ reason: "lost", error }));
  }

  /** @param {string} url @param {SourceOptions} options @param {Sink} sink */
  async #open(url, options, sink) {
    const response = await fetch(url, {
      credentials: options.withCredentials ? "include" : "same-origin",
      headers: { Accept: "text/event-stream" },
      cache: "no-store",
      signal: this.#stop.signal,
    });
    if (!isStream(response)) return sink.fail(await refusal(response));
    if (this.#stop.signal.aborted) return;
    this.#stop.abort(); // ends the stream that `fetch` has opened
    this.#source = new NativeSource(url, options, sink);
  }

  /** @param {string} type */
  listen(type) {
    this.#source?.listen(type); // an EventSource that is not open yet gets all types when it opens
  }

  close() {
    this.#stop.abort();
    this.#source?.close();
  }
}
