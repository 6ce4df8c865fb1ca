/** Uses the client in Node, without a browser's globals, on a real server. Prints the results as a line of JSON. */

import { PushClient } from "../../flask_sse_push/static/push-client.js";

const [, , url] = process.argv;
for (const name of ["document", "sessionStorage", "EventSource", "reportError"]) {
  if (name in globalThis) throw new Error(`this Node has ${name}`);
}

const publish = (event) =>
  fetch(`${url}/publish`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(event),
  });

async function until(condition) {
  for (let n = 0; !condition(); n += 1) {
    if (n > 6000) throw new Error(`waited in vain for ${condition}`);
    await new Promise((done) => setTimeout(done, 5));
  }
}

const found = { node: process.version, received: [], states: [], logged: [] };
console.error = (...parts) => found.logged.push(parts.map(String).join(" "));

const client = new PushClient(`${url}/stream?channels=node`, { minDelay: 20 });
client.on("message", ({ data, lastEventId }) => found.received.push([data, Boolean(lastEventId)]));
client.on("broken", () => {
  throw new Error("a handler failed");
});
client.addEventListener("statechange", ({ detail }) => found.states.push([detail.state, detail.reason]));
await until(() => client.state === "open");
await publish({ data: { n: 1 }, channel: "node" });
await publish({ data: 1, type: "broken", channel: "node" });
await publish({ data: "é".repeat(5000), channel: "node", compress: "auto" });
let joined = false;
client.on("sse.channels", () => (joined = true));
await client.join("room");
await until(() => joined);
await publish({ data: "in the room", channel: "room" });
await until(() => found.received.length === 3);
const loop = client.events("message");
await publish({ data: "in a loop", channel: "node" });
found.looped = (await loop.next()).value.data;
await loop.return();
client.close();

const other = new PushClient(`${url}/nothing`, { tabs: true, remember: true, minDelay: 1, maxRetries: 1 });
await new Promise((closed) => {
  other.addEventListener("statechange", ({ detail }) => detail.state === "closed" && closed());
});
found.wrongPath = other.state;

try {
  new PushClient("/stream");
} catch (error) {
  found.relative = error.message;
}
await until(() => found.logged.length >= 2);
console.log(JSON.stringify(found)); // and the process ends by itself: no timer is left
