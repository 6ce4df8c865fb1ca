// How long events took to the page, by its own clock and by a clock that is wrong.

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { LatencySampler } from "../../../flask_sse_push/static/latency.js";
import { EventParser } from "../../../flask_sse_push/static/sources/event-parser.js";

/** The broker's time at which each test begins, in milliseconds. */
const BEGIN = 1_800_000_000_000;

let client;
let handlers;
let opened;

beforeEach(() => {
  client = new EventTarget();
  client.stats = { lastEvent: null };
  client.lastEventId = "e-1";
  handlers = {};
  client.on = (type, handler) => (handlers[type] = handler);
  client.off = (type) => delete handlers[type];
  opened = (event) => handlers["sse.open"](event);
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

const TRACEPARENT = `00-${"a".repeat(32)}-${"b".repeat(16)}-01`;

/** Makes this process look like a page, which is an EventTarget. */
function asPage(context) {
  const page = new EventTarget();
  for (const name of ["addEventListener", "removeEventListener", "dispatchEvent"]) {
    globalThis[name] = page[name].bind(page);
    context.after(() => delete globalThis[name]);
  }
}

test("a traced event is reported with its times, a missed one is not", (context) => {
  asPage(context);
  const asked = [];
  context.mock.timers.enable({ apis: ["setInterval", "Date"], now: BEGIN });
  const sampler = new LatencySampler(client, () => asked.push(Date.now()));
  const parser = new EventParser({ event: ({ type, id }) => handlers[type]?.({ type, lastEventId: id }) });
  opened({ data: { time: BEGIN } });
  context.mock.timers.tick(5000);
  for (const storedAt of [BEGIN - 60_000, BEGIN + 4990]) {
    parser.feed(`id: ${idOf(storedAt)}\nevent: news\ntraceparent: ${TRACEPARENT}\ndata: x\n\n`);
  }
  assert.deepEqual(sampler.takeTraces(), [[TRACEPARENT, BEGIN + 4990, BEGIN + 5000]]);
  assert.equal(asked.length, 1);
  sampler.stop();
  parser.feed(`id: ${idOf(BEGIN + 4999)}\nevent: news\ntraceparent: ${TRACEPARENT}\ndata: x\n\n`);
  assert.deepEqual(sampler.takeTraces(), []);
});

test("many traced events take little memory, and at most five go into a report", (context) => {
  asPage(context);
  const sampler = open(context);
  context.mock.timers.tick(1);
  for (let number = 0; number < 300; number += 1) {
    const id = idOf(Date.now() + number);
    dispatchEvent(new CustomEvent("sse-push:traced", { detail: { id, type: `t${number}`, traceparent: TRACEPARENT } }));
    handlers[`t${number}`]?.({ lastEventId: id });
  }
  assert.ok(Object.keys(handlers).length <= 101);
  assert.equal(sampler.takeTraces().length, 5);
  sampler.stop();
  assert.deepEqual(Object.keys(handlers), []);
});
