// How the fetch source sends a long address, to a real server in this process.

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { test } from "node:test";
import { Source } from "../../../flask_sse_push/static/sources/fetch.js";
import { MAX_URL } from "../../../flask_sse_push/static/sources/native.js";

/** Opens a stream; returns the request that the server got. */
async function requestFor(query, options = {}) {
  const server = createServer(async (request, response) => {
    let body = "";
    for await (const part of request) body += part;
    response.writeHead(200, { "Content-Type": "text/event-stream" }).end();
    server.emit("read", { method: request.method, url: request.url, type: request.headers["content-type"], body });
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const sink = { event() {}, fail() {}, trouble: {} };
  const got = once(server, "read");
  const source = new Source(`http://127.0.0.1:${server.address().port}/stream?${query}`, options, sink);
  const [request] = await got;
  source.close();
  server.close();
  return request;
}

const LONG = "x".repeat(MAX_URL);

test("a short address is sent by GET", async () => {
  const { method, url, body } = await requestFor("channels=a&last_event_id=e-1");
  assert.deepEqual([method, url, body], ["GET", "/stream?channels=a&last_event_id=e-1", ""]);
});

test("channels, cursor and ticket of a long address are sent in a body, and the app's parameters stay", async () => {
  const { method, url, type, body } = await requestFor(`tenant=7&channels=a,${LONG}&last_event_id=e-1&ticket=t%2Fu`);
  assert.deepEqual([method, url, type], ["POST", "/stream?tenant=7", "application/json"]);
  assert.deepEqual(JSON.parse(body), { channels: `a,${LONG}`, last_event_id: "e-1", ticket: "t/u" });
});

test("a method and a body of the app are left alone", async () => {
  const query = `channels=${LONG}`;
  const put = await requestFor(query, { method: "PUT" });
  assert.deepEqual([put.method, put.url, put.body], ["PUT", `/stream?${query}`, ""]);
  const post = await requestFor(query, { method: "POST", body: { ask: 1 } });
  assert.deepEqual([post.method, post.url, post.body], ["POST", `/stream?${query}`, '{"ask":1}']);
});
