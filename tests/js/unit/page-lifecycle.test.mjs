// When the client suspends its connection because of the page, and when it resumes.

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { followPage } from "../../../flask_sse_push/static/page-lifecycle.js";

let calls;
let closing;
let client;

const fire = (target, type) => target.dispatchEvent(new Event(type));

function hide(hidden) {
  document.hidden = hidden;
  fire(document, "visibilitychange");
}

beforeEach(() => {
  globalThis.window = new EventTarget();
  globalThis.document = Object.assign(new EventTarget(), { hidden: false });
  calls = [];
  client = { lastEventId: "e-1" };
  globalThis.sessionStorage = { setItem: (key, value) => calls.push(`save ${key} ${value}`) };
  closing = new AbortController();
});

function follow(hiddenAfter = Infinity, memory = "key") {
  const setSuspended = (reason) => calls.push(reason ? `suspend ${reason}` : "resume");
  followPage(client, { hiddenAfter }, memory, setSuspended, closing.signal);
}

test("it resumes when no reason is left", () => {
  follow();
  fire(window, "offline");
  fire(document, "freeze");
  fire(window, "online");
  assert.deepEqual(calls, ["suspend offline", "save key e-1", "suspend frozen"]);
  fire(document, "resume");
  assert.equal(calls.at(-1), "resume");
  fire(document, "resume");
  assert.equal(calls.length, 4);
});

test("a page may be hidden for a while", (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  follow(1000);
  hide(true);
  context.mock.timers.tick(999);
  hide(false);
  context.mock.timers.tick(1000);
  assert.deepEqual(calls, ["save key e-1"]);
  hide(true);
  context.mock.timers.tick(1000);
  assert.equal(calls.at(-1), "suspend hidden");
  hide(false);
  assert.equal(calls.at(-1), "resume");
});

test("a closed client is left alone", (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  follow(1000);
  hide(true);
  client.lastEventId = "e-2";
  closing.abort();
  context.mock.timers.tick(1000);
  fire(window, "offline");
  const saved = ["save key e-1", "save key e-2"];
  assert.deepEqual(calls, saved);
  follow(1000); // the client closed before it had loaded the module
  context.mock.timers.tick(1000);
  assert.deepEqual(calls, saved);
});

test("a client without a memory saves nothing", () => {
  follow(Infinity, "");
  fire(window, "pagehide");
  closing.abort();
  assert.deepEqual(calls, ["suspend left"]);
});
