// What the admin page writes: numbers, addresses of views, and sentences about trouble.

import assert from "node:assert/strict";
import { test } from "node:test";
import { fragment, parse } from "../../../flask_sse_push/static/admin/address.js";
import { ago, count, counted, duration, size } from "../../../flask_sse_push/static/admin/format.js";
import { sentenceOf } from "../../../flask_sse_push/static/admin/live.js";
import { trouble } from "../../../flask_sse_push/static/admin/sentences.js";
import { Failure } from "../../../flask_sse_push/static/admin/server.js";
import { Workers } from "../../../flask_sse_push/static/admin/workers.js";

test("a duration has at most two units", () => {
  assert.equal(duration(0.0042), "4 ms");
  assert.equal(duration(1.9), "1 s");
  assert.equal(duration(60), "1 min");
  assert.equal(duration(185), "3 min 5 s");
  assert.equal(duration(86_400 * 2 + 3600 * 5 + 59), "2 d 5 h");
  assert.equal(duration(-3), "0 ms");
  assert.equal(duration(null), "–");
  assert.equal(ago(0.4), "just now");
  assert.equal(ago(12), "12 s ago");
});

test("sizes and counts are short", () => {
  assert.deepEqual([0, 999, 1500, 34_567, 2e6, 5e12].map(size), ["0 B", "999 B", "1.5 kB", "35 kB", "2.0 MB", "5000 GB"]);
  assert.equal(count(18_211), "18,211");
  assert.deepEqual([counted(1, "stream"), counted(0, "stream")], ["1 stream", "0 streams"]);
});

test("an address keeps every name that a user or channel may have", () => {
  for (const user of ["7", "a b&c=d#e?f/g%", "<img src=x>", "ünï"]) {
    const { name, query } = parse(fragment("streams", { user, channel: "", after: null }));
    assert.equal(name, "streams");
    assert.deepEqual([...query], [["user", user]]);
  }
  assert.deepEqual(["", "#", "#/", "#main"].map((hash) => parse(hash).name), ["", "", "", "main"]);
  assert.equal(fragment(""), "#/");
});

test("trouble says what is going on, and from when the data is", () => {
  const since = new Date(2027, 0, 31, 3, 12, 5);
  assert.match(trouble(new Failure(401, ""), since), /^You are not signed in any more\. Sign in/);
  assert.match(trouble(new Failure(403, ""), since), /^You may not use this page any more\./);
  assert.match(trouble(new Failure(0, ""), since), /^The server does not answer\. .*from .*12:05\.$/);
  assert.match(trouble(new Failure(503, "the broker does not answer"), since), /^The broker does not answer\. .*from .*12:05\.$/);
  assert.equal(trouble(new Failure(400, "user has 400 characters"), null), "User has 400 characters.");
});

test("the state of the stream is one sentence", () => {
  assert.equal(sentenceOf({ state: "open" }), "Live");
  assert.equal(sentenceOf({ state: "waiting", reason: "drain", delay: 900 }), "Not live: the server is restarting; next try in 1 s");
  assert.equal(sentenceOf({ state: "waiting", reason: "disconnected" }), "Not live: the connection has ended");
  assert.equal(sentenceOf({ state: "closed", reason: "logout" }), "Not live: your session has ended");
});

test("a worker that reports nothing is gone, until the server no longer counts it", (context) => {
  let now = 0;
  context.mock.method(performance, "now", () => now);
  const workers = new Workers();
  workers.take({ workers: [{ worker: "b" }, { worker: "a" }], missing: [], idle: 1 });
  assert.equal(workers.idle, 1);
  workers.note({ worker: "c", every: 2, streams: 1 });
  assert.deepEqual(workers.all().map(({ worker }) => worker), ["a", "b", "c"]);
  now = 7000;
  assert.deepEqual(["a", "c"].map((name) => workers.isGone(name)), [false, true]);
  workers.note({ worker: "c", every: 2, streams: 2 });
  assert.equal(workers.isGone("c"), false);
  workers.take({ workers: [{ worker: "a" }], missing: ["c"], idle: 0 });
  assert.deepEqual(workers.all().map(({ worker }) => worker), ["a", "c"]);
});
