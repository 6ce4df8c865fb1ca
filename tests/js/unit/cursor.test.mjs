// Compares two cursors, as far as a page can compare them.

import assert from "node:assert/strict";
import { test } from "node:test";
import { reached } from "../../../flask_sse_push/static/tabs/cursor.js";

test("a stream has reached its own cursor, whatever it looks like", () => {
  assert.ok(reached("e-1", "e-1"));
  assert.ok(reached("opaque", "opaque"));
  assert.ok(reached("", ""));
});

test("ids of one epoch have an order", () => {
  assert.ok(reached("e-2", "e-1"));
  assert.ok(!reached("e-1", "e-2"));
  assert.ok(reached("e-10", "e-z"), "a longer id in base 36 is greater");
  assert.ok(!reached("e-z", "e-10"));
});

test("cursors that cannot be compared have not been reached", () => {
  assert.ok(!reached("other-2", "e-1"));
  assert.ok(!reached("e-1.2", "e-1"));
  assert.ok(!reached("e-2", "e-1.2"));
  assert.ok(!reached("", "e-1"));
});
