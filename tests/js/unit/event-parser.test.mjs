// The parser of the event stream format: ids, limits and memory.

import assert from "node:assert/strict";
import { test } from "node:test";
import { EventParser } from "../../../flask_sse_push/static/sources/event-parser.js";

// Returns what a parser makes of pieces of text.
function parsed(pieces, options) {
  const events = [];
  const parser = new EventParser({ event: (event) => events.push(event) }, options);
  for (const piece of [pieces].flat()) parser.feed(piece);
  return events.map(({ type, data, id, skipped }) => [type, data, id, ...(skipped ? [skipped] : [])]);
}

test("events before the first id have none", () => {
  assert.deepEqual(parsed("data: 1\n\nid: a\ndata: 2\n\ndata: 3\n\n"), [
    ["message", "1", undefined],
    ["message", "2", "a"],
    ["message", "3", "a"],
  ]);
  assert.deepEqual(parsed("data: 1\n\n", { lastId: "a" }), [["message", "1", "a"]]);
});

test("an empty id resets the id", () => {
  assert.deepEqual(parsed("id: a\ndata: 1\n\nid\ndata: 2\n\nid:\ndata: 3\n\n").map(([, , id]) => id), ["a", "", ""]);
});

test("an id counts when its block ends, even if the block has no data", () => {
  assert.deepEqual(parsed("id: a\n\n: a comment\n\n"), [["message", "", "a", {}]]);
  assert.deepEqual(parsed("id: a\ndata: 1\n"), []);
  assert.deepEqual(parsed("id: a\ndata: 1\n\nid: b\n"), [["message", "1", "a"]]);
});

test("an event may have exactly as many characters as the limit allows", () => {
  const tooLarge = (size) => ({ reason: "too large", size });
  for (const [stream, size] of [
    [`data: ${"x".repeat(10)}\n\n`, 10],
    ["data: 1234\ndata: 67890\n\n", 10],
    ["data\ndata: 234567890\n\n", 10],
  ]) {
    assert.equal(parsed(stream, { maxSize: size })[0][3], undefined);
    assert.deepEqual(parsed(stream, { maxSize: size - 1 }), [["message", "", undefined, tooLarge(size)]]);
  }
});

test("the limit holds wherever the text is cut", () => {
  const stream = `id: 1\nevent: big\ndata: ${"x".repeat(2000)}\ndata: y\n\ndata: next\n\n`;
  const expected = [
    ["big", "", "1", { reason: "too large", size: 2002 }],
    ["message", "next", "1"],
  ];
  for (const size of [1, 7, 999, 2010, stream.length]) {
    const pieces = stream.match(new RegExp(`[^]{1,${size}}`, "g"));
    assert.deepEqual(parsed(pieces, { maxSize: 500 }), expected);
  }
});

test("long comments and unknown fields cost nothing", () => {
  const long = "x".repeat(5000);
  assert.deepEqual(parsed(`: ${long}\nfield: ${long}\n${long}\nid: ${long}\ndata: 1\n\n`, { maxSize: 10 }), [
    ["message", "1", undefined],
  ]);
  assert.equal(parsed(`event: ${long}\ndata: 1\n\n`, { maxSize: 10 })[0][3].reason, "too large");
});

test("the protocol's own events may be larger", () => {
  const [[type, data]] = parsed(`event: sse.open\ndata: ${"x".repeat(5000)}\n\n`, { maxSize: 10 });
  assert.deepEqual([type, data.length], ["sse.open", 5000]);
});

test("a line without an end stays small in memory, and the events after it arrive", () => {
  const events = [];
  const parser = new EventParser({ event: (event) => events.push(event) }, { maxSize: 1_000_000 });
  const before = process.memoryUsage().heapUsed;
  parser.feed("id: 1\ndata: ");
  for (let n = 0; n < 2000; n += 1) parser.feed("x".repeat(100_000 + (n % 7)));
  assert.ok(process.memoryUsage().heapUsed - before < 100_000_000);
  assert.equal(events.length, 0);
  parser.feed("\n\ndata: next\n\n");
  assert.equal(events[0].skipped.reason, "too large");
  assert.ok(events[0].skipped.size > 200_000_000);
  assert.equal(events[1].data, "next");
});
