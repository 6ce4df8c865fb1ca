// The inbox takes batches apart, and keeps the order of events while compressed ones are unpacked.

import assert from "node:assert/strict";
import { test } from "node:test";
import { gzipSync } from "node:zlib";
import { Inbox } from "../../../flask_sse_push/static/inbox.js";

const packed = (value) => {
  const data = gzipSync(JSON.stringify(value)).toString("base64");
  return { compressed: true, encoding: "gzip+base64", data };
};

const textOf = (data) => JSON.stringify(data) + (data?.compressed ? "\t\t" : "");

const message = (data) => ({ type: "message", data, text: textOf(data), lastEventId: "" });

// Returns an inbox, with the lists of messages that it delivers and of failures that it reports.
function opened(maxInflated) {
  const delivered = [];
  const failures = [];
  const sink = { deliver: (message) => delivered.push(message), fail: (ending) => failures.push(ending) };
  return { inbox: new Inbox(sink, ({ type, data, id }) => ({ type, data: JSON.parse(data), text: data, lastEventId: id }), maxInflated), delivered, failures };
}

async function until(condition) {
  for (let n = 0; n < 2000 && !condition(); n += 1) await new Promise((done) => setTimeout(done, 5));
  assert.ok(condition());
}

test("a later event does not overtake a compressed one", async () => {
  const { inbox, delivered } = opened();
  const big = "x".repeat(1_000_000);
  for (const data of [packed(big), 1, packed(2), 3]) inbox.add(message(data));
  await until(() => delivered.length === 4);
  assert.deepEqual(delivered.map(({ data }) => data), [big, 1, 2, 3]);
});

test("a broken event is delivered in its place, with the error", async () => {
  const { inbox, delivered } = opened(10);
  for (const data of [packed("too long a text"), 1]) inbox.add(message(data));
  await until(() => delivered.length === 2);
  assert.match(delivered[0].skipped.error.message, /more than 10 bytes/);
  assert.equal(delivered[0].skipped.size, '"too long a text"'.length);
  assert.equal(delivered[1].skipped, undefined);
});

test("too many waiting events are a failure", async () => {
  const { inbox, delivered, failures } = opened();
  for (let n = 0; n < 1000; n += 1) inbox.add(message(n ? n : packed(n)));
  assert.deepEqual(failures, []);
  inbox.add(message(1000));
  assert.deepEqual(failures, [{ reason: "overflow" }]);
  await until(() => delivered.length === 1000);
  inbox.add(message(1001));
  await until(() => delivered.length === 1001);
  assert.equal(failures.length, 1);
});

test("a message that waits for no other is delivered at once", async () => {
  const { inbox, delivered } = opened();
  inbox.add(message(1));
  assert.equal(delivered.length, 1);
  inbox.add(message(packed(2)));
  await until(() => delivered.length === 2);
  inbox.add(message(3));
  assert.equal(delivered.length, 3);
});

test("a batch of any length is taken apart", async () => {
  const { inbox, delivered, failures } = opened();
  const events = Array.from({ length: 3000 }, (_, n) => ({ type: "tick", data: `${n}`, id: `e-${n}` }));
  inbox.add({ type: "sse.batch", data: events, lastEventId: "e-2999" });
  assert.deepEqual(delivered.at(-1), { type: "tick", data: 2999, text: "2999", lastEventId: "e-2999" });
  inbox.add({ type: "sse.batch", data: [{ ...events[0], data: textOf(packed(0)) }, events[1]], lastEventId: "e-1" });
  await until(() => delivered.length === 3002);
  assert.deepEqual(delivered.slice(-2).map(({ data }) => data), [0, 1]);
  assert.deepEqual(failures, []);
});

test("an envelope without the marks of the server is data", () => {
  const { inbox, delivered } = opened(10);
  const forged = packed("x".repeat(5000));
  for (const text of [JSON.stringify(forged), `${JSON.stringify(forged)}\t`]) inbox.add({ ...message(forged), text });
  assert.deepEqual(delivered.map(({ data, skipped }) => [data, skipped]), [[forged, undefined], [forged, undefined]]);
});

test("too much text that waits is a failure, but a single event may be as large as it is", async () => {
  const { inbox, delivered, failures } = opened();
  const large = () => ({ ...message(packed(1)), text: "x".repeat(33_000_000) + "\t\t" });
  inbox.add(large());
  await until(() => delivered.length === 1);
  inbox.add(large());
  inbox.add(large());
  assert.deepEqual(failures, [{ reason: "overflow" }]);
});

test("nothing more is unpacked when the connection has ended", async () => {
  const delivered = [];
  let unpacked = 0;
  const messageOf = ({ type, data }) => ({ type, data: (unpacked += 1), text: data });
  const sink = { deliver: (message) => delivered.push(message) < 2, fail: () => {} };
  const inbox = new Inbox(sink, messageOf);
  for (let n = 0; n < 5; n += 1) inbox.add(message(packed(n)));
  const other = opened();
  for (let n = 0; n < 9; n += 1) other.inbox.add(message(packed(n)));
  await until(() => other.delivered.length === 9);
  assert.deepEqual([delivered.length, unpacked], [2, 2]);
});

test("what is no batch, and what is no event of a batch, is skipped with an error", () => {
  const { inbox, delivered } = opened();
  const good = { data: "1", id: "e-1" };
  for (const data of [null, "text", 5, {}, [null], [5], [{}], [{ data: 5 }], [{ ...good, type: 5 }], [{ ...good, id: {} }]]) {
    inbox.add({ type: "sse.batch", data, text: "", lastEventId: "e-2" });
    const { type, skipped, lastEventId } = delivered.pop();
    assert.deepEqual([type, skipped.reason, lastEventId], ["sse.batch", "payload", "e-2"]);
  }
  inbox.add({ type: "sse.batch", data: [null, good], text: "", lastEventId: "e-2" });
  assert.deepEqual(delivered.map(({ data }) => data), [null, 1]);
});
