// Answers of the server: which are event streams, and what is told about the others.

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { essence, isStream, refusal } from "../../../flask_sse_push/static/sources/refusal.js";

let warnings;

beforeEach(() => {
  warnings = [];
  console.warn = (...parts) => warnings.push(parts.join(" ").trim());
});

const response = (status, type, body = "") => new Response(body, { status, headers: type ? { "Content-Type": type } : {} });

test("the type of an event stream is recognized as the standard says", () => {
  for (const type of [
    "text/event-stream",
    "text/event-stream; charset=utf-8",
    "text/event-stream;charset=windows-1251",
    "TEXT/Event-Stream",
    " text/event-stream ;",
    "text/event-stream; boundary=x; x=\"a, b\"",
    "text/html, text/event-stream",
    "text/event-stream, nonsense",
    "text/event-stream, */*",
  ]) {
    assert.ok(isStream(response(200, type)), type);
  }
  for (const type of [
    "text/event-streamX",
    "text/event-stream-x",
    "text/event",
    "xtext/event-stream",
    "text/x-event-stream",
    "text/ event-stream",
    "text/event-stream, text/html",
    "text/html; x=\", text/event-stream\"",
    "nonsense",
    "",
  ]) {
    assert.ok(!isStream(response(200, type)), type);
  }
  assert.ok(!isStream(response(201, "text/event-stream")));
});

test("a refusal tells the server's message once", async () => {
  const answer = () => response(403, "application/json", '{"message": "not for you", "code": 1201}');
  const { error, status, contentType } = await refusal(answer(), "https://a.example/stream?ticket=secret");
  assert.deepEqual([error.code, status, contentType], [1201, 403, "application/json"]);
  await refusal(answer(), "https://a.example/stream?ticket=other");
  assert.deepEqual(warnings, ["PushClient: https://a.example/stream answered 403 (application/json). not for you"]);
});

test("a wrong path is told as such", async () => {
  await refusal(response(404, "text/html", "<p>"), "https://a.example/push/stream?channels=a");
  assert.match(warnings[0], /404 \(text\/html\)\. Is the blueprint registered under \/push\/stream\?$/);
});

test("a text without an end is read only in part", async () => {
  const endless = new ReadableStream({ pull: (controller) => controller.enqueue(new Uint8Array(50_000).fill(65)) });
  const answer = new Response(endless, { status: 500, headers: { "Content-Type": "text/plain" } });
  assert.equal((await refusal(answer, "https://a.example/stream")).error, undefined);
  assert.ok(warnings[0].length < 500);
});

test("the console does not get endlessly many texts", async () => {
  for (let n = 0; n < 300; n += 1) await refusal(response(500, "text/plain", `${n}`), "https://a.example/stream");
  assert.ok(warnings.length <= 100);
});
