/**
 * Plays cases with PushClient, in a page or in a worker, and returns what the client reported.
 * @typedef {{ run: string, address: string, options: object, types: string[], connections: number,
 *   waits: boolean }} Order
 */

import { PushClient } from "/client/push-client.js";

/** At most how many cases run at a time: a browser opens six connections to a server. */
const AT_ONCE = 3;

/** Milliseconds after which a case is given up. */
const PATIENCE = 10_000;

/** Plays one case. @param {Order} order @returns {Promise<unknown[][]>} */
function play({ run, address, options, types, connections, waits }) {
  return new Promise((resolve) => {
    /** @type {unknown[][]} */ const reports = [];
    let left = connections;
    const report = (/** @type {unknown[]} */ ...one) => reports.push(one);
    const client = new PushClient(`${address}?run=${encodeURIComponent(run)}`, { tabs: false, minDelay: 1, ...options });
    setTimeout(() => resolve([...reports, ["nothing more happens"]]), PATIENCE);
    const finish = () => {
      client.close();
      // What comes after the close is a fault, so it must be in the reports.
      setTimeout(() => resolve(reports), 20);
    };
    for (const type of types) {
      client.on(type, ({ type, data, text = data, lastEventId }) => {
        report(type, text, lastEventId);
        if (data === "close") finish();
      });
    }
    client.addEventListener("error", ({ detail }) => {
      // EventSource does not know why the server refused it; a second request tells.
      if (detail.reason !== "refused" || detail.status !== undefined) report("error", detail.reason, detail.status ?? null);
    });
    client.addEventListener("statechange", ({ detail }) => {
      if (detail.state === "closed" && detail.status) resolve(reports);
      if (detail.state !== "waiting") return;
      if (waits) report("waits", detail.delay);
      if (!--left) finish();
    });
  });
}

/** Plays all cases. @param {Order[]} orders @returns {Promise<Record<string, unknown[][]>>} The reports by run. */
export async function playAll(orders) {
  Math.random = () => 0.5;
  /** @type {Record<string, unknown[][]>} */ const found = {};
  const waiting = [...orders];
  const worker = async () => {
    for (let order = waiting.shift(); order; order = waiting.shift()) {
      found[order.run] = await play(order).catch((error) => [["throws", error.name]]);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  return found;
}

/** In a worker, plays what it is sent. @param {{ postMessage(message: unknown): void }} port */
const answerOn = (port) => async (/** @type {MessageEvent<Order[]>} */ { data }) => port.postMessage(await playAll(data));

if (!globalThis.document) {
  const scope = /** @type {any} */ (globalThis);
  scope.onmessage = answerOn(scope);
  scope.onconnect = (/** @type {MessageEvent} */ { ports: [port] }) => (port.onmessage = answerOn(port));
}
