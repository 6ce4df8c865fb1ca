/** A connection by fetch: it may have headers, a method and a body, hears events of all types, and is told why
 * it was refused. */

import { EventParser } from "./event-parser.js";
import { isStream, refusal } from "./refusal.js";

export class FetchSource {
  #stop = new AbortController();

  /** @param {object} sink `event(type, text, id, channels)`, `retry(ms)`, `fail({reason, …})`. */
  constructor(url, request, sink) {
    this.#read(url, request, sink).then(
      (told) => sink.fail(told),
      (error) => sink.fail({ reason: error.name === "EventTooLarge" ? "too large" : "lost", error }),
    );
  }

  close() {
    this.#stop.abort();
  }

  /** Reads until the server ends the stream; returns why it is over. */
  async #read(url, request, sink) {
    const { method = "GET", body, withCredentials, maxEvent } = request;
    const headers = await headersOf(request);
    const response = await fetch(url, {
      method,
      body: isJson(body) ? JSON.stringify(body) : body,
      headers,
      credentials: withCredentials ? "include" : "same-origin",
      cache: "no-store",
      signal: this.#stop.signal,
    });
    if (!isStream(response)) return refusal(response);
    const parser = new EventParser(sink, { maxSize: maxEvent });
    const reader = response.body.pipeThrough(new TextDecoderStream("utf-8", { ignoreBOM: true })).getReader();
    try {
      for (;;) {
        const { value, done } = await reader.read();
        if (done || this.#stop.signal.aborted) return { reason: "lost" };
        parser.feed(value);
      }
    } finally {
      this.#stop.abort();
    }
  }
}

const isJson = (body) => Object.getPrototypeOf(body ?? "") === Object.prototype || Array.isArray(body);

/** What the app gave, or gives now: its functions are asked for each connection, since tokens grow old. */
export async function headersOf({ headers, token, body }) {
  const made = new Headers({ Accept: "text/event-stream" });
  if (isJson(body)) made.set("Content-Type", "application/json");
  const given = typeof headers === "function" ? await headers() : headers;
  for (const [name, value] of new Headers(given)) made.set(name, value);
  const bearer = typeof token === "function" ? await token() : token;
  if (bearer) made.set("Authorization", `Bearer ${bearer}`);
  return made;
}
