// How long events took to the page, by its own clock and by a clock that is wrong.

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { LatencySampler } from "../../../flask_sse_push/static/latency.js";

/** The broker's time at which each test begins, in milliseconds. */
const BEGIN = 1_800_000_000_000;

let client;
let opened;

beforeEach(() => {
  client = new EventTarget();
  client.stats = { lastEvent: null };
  client.lastEventId = "e-1";
  client.on = (type, handler) => (opened = handler);
  client.off = () => null;
});

const idOf = (time) => `e-${(time * 1000).toString(36)}`;

/** The client gives an event to its handlers now. `storedAt` is the broker's time. */
function arrive(storedAt, type = "message") {
  client.lastEventId = idOf(storedAt);
  client.stats = { lastEvent: { type, lastEventId: client.lastEventId, at: new Date().toISOString() } };
}

/** Opens a stream: the request took `there` ms to the server, the answer `back` ms. `wrong`: by how much our clock is. */
function open(context, { there = 10, back = 10, wrong = 0, withTime = true } = {}) {
  context.mock.timers.enable({ apis: ["setInterval", "Date"], now: BEGIN + wrong });
  const sampler = new LatencySampler(client);
  context.mock.timers.tick(there);
  const time = Date.now() - wrong;
  context.mock.timers.tick(back);
  opened({ data: withTime ? { time } : {} });
  return sampler;
}

test("an answer that the network holds back does not falsify what is measured", (context) => {
  const sampler = open(context, { there: 1, back: 100 });
  context.mock.timers.tick(5000);
  arrive(Date.now() - 100);
  context.mock.timers.tick(1000);
  assert.deepEqual(sampler.take(), [100]);
  assert.deepEqual(sampler.take(), []);
});

test("a clock that is wrong by an hour is set right", (context) => {
  for (const wrong of [-3_600_000, 3_600_000]) {
    client.stats = { lastEvent: null };
    client.lastEventId = "e-1";
    const sampler = open(context, { there: 6, back: 4, wrong });
    context.mock.timers.tick(5000);
    arrive(Date.now() - wrong - 250);
    context.mock.timers.tick(1000);
    const [time] = sampler.take();
    assert.ok(Math.abs(time - 250) <= 5, `${time} ms, clock wrong by ${wrong} ms`);
    sampler.stop();
    context.mock.timers.reset();
  }
});

test("missed events and the protocol's own events are not measured", (context) => {
  const sampler = open(context);
  arrive(Date.now() - 60_000);
  context.mock.timers.tick(1000);
  arrive(Date.now(), "sse.heartbeat");
  context.mock.timers.tick(1000);
  client.stats.lastEvent.lastEventId = ".Ab3_x90abcdeAAAAAAAAB"; // a cursor of several shards
  client.stats.lastEvent.type = "message";
  context.mock.timers.tick(1000);
  assert.deepEqual(sampler.take(), []);
});

test("without the broker's time nothing is measured", (context) => {
  const sampler = open(context, { withTime: false });
  context.mock.timers.tick(5000);
  arrive(Date.now() - 100);
  context.mock.timers.tick(1000);
  assert.deepEqual(sampler.take(), []);
});

test("a tab that changes to a shared connection still knows the offset", (context) => {
  const sampler = open(context, { wrong: 500_000 });
  context.mock.timers.tick(5000);
  opened({ data: {} });
  context.mock.timers.tick(5000);
  arrive(Date.now() - 500_000 - 40);
  context.mock.timers.tick(1000);
  assert.deepEqual(sampler.take(), [40]);
});

test("an event is measured once, and at most 50 times are kept", (context) => {
  const sampler = open(context);
  for (let count = 0; count < 200; count += 1) {
    context.mock.timers.tick(1000);
    arrive(Date.now() - count);
    context.mock.timers.tick(3000);
  }
  const times = sampler.take();
  assert.equal(times.length, 50);
  assert.equal(new Set(times).size, 50);
  assert.ok(Math.max(...times) >= 50, "late times have the same chance");
  sampler.stop();
  arrive(Date.now());
  context.mock.timers.tick(3000);
  assert.deepEqual(sampler.take(), []);
});
