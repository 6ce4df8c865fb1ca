// What the console says about an `sse.error`.

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { beforeEach, test } from "node:test";
import { show } from "../../../flask_sse_push/static/console.js";
import { PushClient } from "../../../flask_sse_push/static/push-client.js";

let warnings;
let warned; // a promise, which the first warning resolves

beforeEach(() => {
  warnings = [];
  warned = new Promise((resolve) => {
    console.warn = (text) => resolve(warnings.push(text));
  });
});

test("a server's error is told once", () => {
  const data = { code: 1301, message: "a stream listens to at most 50 channels" };
  for (const sent of [data, data, null, "text", {}]) show(sent);
  assert.deepEqual(warnings, ["PushClient: the server says: a stream listens to at most 50 channels"]);
});

test("an error is told although the stream has not begun", { timeout: 20_000 }, async (context) => {
  const server = createServer((_, response) => {
    response.writeHead(200, { "Content-Type": "text/event-stream" });
    response.write('event: sse.error\ndata: {"code": 1203, "message": "the broker does not answer"}\n\n');
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  const client = new PushClient(`http://127.0.0.1:${server.address().port}/stream`);
  context.after(() => {
    client.close();
    server.closeAllConnections();
    server.close();
  });
  await warned;
  assert.deepEqual(warnings, ["PushClient: the server says: the broker does not answer"]);
  assert.equal(client.state, "connecting");
});
