// @ts-check
/**
 * The events of a `for await` loop.
 * @import { Handler, Message, PushClient } from "./push-client.js"
 * @import { Loop } from "./sources/source.js"
 */

/**
 * Yields the messages until the page closes the client. If the server ends the stream, yields the rest first.
 * @param {PushClient} client
 * @param {string} type The type of the messages; "*" for all types.
 * @param {Message[]} messages Messages that wait for the loop. `gather` adds more.
 * @param {Handler} gather The handler of the client that adds to `messages`. It removes itself if too many wait.
 * @param {number} max At most how many messages may wait.
 * @param {AbortSignal} closed Aborted when the client is closed. If the page called `close`, the reason is the usual
 *   AbortError.
 * @returns {Loop}
 * @throws {RangeError} If too many messages wait.
 */
export async function* loop(client, type, messages, gather, max, closed) {
  let wake = () => {};
  const wakeUp = () => wake(); // the client calls `gather` first, since it was added first
  client.on(type, wakeUp);
  closed.addEventListener("abort", wakeUp);
  try {
    for (;;) {
      if (closed.aborted && closed.reason.name === "AbortError") return;
      const message = messages.shift();
      if (messages.length >= max) throw new RangeError(`the loop is ${max} events behind`);
      if (message) yield message;
      else if (closed.aborted) return;
      else await new Promise((next) => (wake = () => next(0)));
    }
  } finally {
    closed.removeEventListener("abort", wakeUp);
    client.off(type, gather).off(type, wakeUp);
  }
}
