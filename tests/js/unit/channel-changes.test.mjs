// Joins and leaves of a tab while its connection changes, with a real server in this process.

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { afterEach, beforeEach, test } from "node:test";
import { ChannelChanges } from "../../../flask_sse_push/static/tabs/channel-changes.js";
import { TabChannels } from "../../../flask_sse_push/static/tabs/tab-channels.js";

/** The requests that wait for an answer: the connection, what it joins and leaves, and `answer`. */
let requests;
let server;
let base;
let client;

/** A tab's source: on a shared connection it leaves channels by itself. */
class Tab {
  channels = new TabChannels(["a"]);
  shared = true;
  reopened = 0;
  has = (name) => this.channels.asked.has(name);
  grant = (names) => this.channels.grant(names);
  drop = (names) => (this.channels.drop(names), this.shared);
  reopen = () => {
    this.reopened += 1;
    client.changes.onConnection(this, null);
  };
}

beforeEach(async () => {
  console.warn = () => {};
  requests = [];
  server = createServer(async (request, response) => {
    let body = "";
    for await (const part of request) body += part;
    const { join, leave } = JSON.parse(body);
    const answer = (status) => response.writeHead(status, { "Content-Type": "application/json" }).end('{"code": 1201}');
    requests.push({ connection: request.url.split("/").at(-2), join, leave, answer });
    server.emit("asked");
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  base = new URL(`http://127.0.0.1:${server.address().port}/stream`);
  const closing = new AbortController();
  client = { channels: new Set(["a"]), tab: new Tab(), closing, trouble: {} };
  client.changes = ChannelChanges.of(client.trouble, base, {});
  client.changes.onConnection(client.tab, null);
});

afterEach(() => {
  server.closeAllConnections();
  server.close();
});

const connect = (id, tab = client.tab) => client.changes.onConnection(tab, id && { connection: id, secret: "s" });

/** Asks for a change as PushClient does; returns the promise of what came of it. */
function change(verb, ...names) {
  for (const name of names) client.channels[verb === "join" ? "add" : "delete"](name);
  const settled = client.trouble.change(names, client.channels, client.closing.signal);
  return settled.then(() => "done", ({ status, message }) => status ?? message);
}

async function asked() {
  if (!requests.length) await once(server, "asked");
  return requests.shift();
}

async function answered(status, connection) {
  const request = await asked();
  assert.equal(request.connection, connection);
  request.answer(status);
}

test("a join waits for the first connection, which does not ask for the channel", async () => {
  const joined = change("join", "b");
  const query = new URLSearchParams("channels=a,b");
  assert.deepEqual([client.changes.decided(query), query.get("channels")], [["a"], "a"]);
  connect("own");
  await answered(403, "own");
  assert.equal(await joined, 403);
  assert.deepEqual([[...client.channels], client.tab.has("b")], [["a"], false]);
});

async function reopened() {
  for (let n = 0; n < 2000 && !client.tab.reopened; n += 1) await new Promise((next) => setTimeout(next, 5));
  assert.equal(client.tab.reopened, 1);
}

test("the refusal of a connection that is gone does not count", async () => {
  for (const [status, result] of [[403, 403], [202, "done"]]) {
    connect("own");
    const joined = change("join", `b${status}`);
    const request = await asked();
    connect("shared~1");
    request.answer(403);
    await answered(status, "shared~1");
    assert.equal(await joined, result);
  }
  assert.deepEqual([...client.channels], ["a", "b202"]);
});

test("a join that is allowed, but lost with its connection, is done by a new connection", async () => {
  connect("shared~1");
  const joined = change("join", "b");
  const request = await asked();
  connect("shared~2");
  request.answer(202);
  await reopened();
  assert.deepEqual([client.tab.has("b"), client.changes.isUndecided("b")], [true, false]);
  connect("own");
  assert.equal(await joined, "done");
  assert.deepEqual(requests, []);
});

test("a refusal that comes while there is no connection is asked for again", async () => {
  connect("own");
  const joined = change("join", "b");
  const request = await asked();
  connect(null);
  request.answer(403);
  const later = new Tab(); // the client connected again by a new source
  connect("next", later);
  await answered(202, "next");
  assert.equal(await joined, "done");
  assert.deepEqual([client.tab.has("b"), later.has("b")], [false, true]);
});

test("each of several joins gets its own answer", async () => {
  connect("shared~1");
  const joins = [change("join", "b"), change("join", "c"), change("join", "b"), change("join", "c", "d")];
  for (const [status, names] of [[403, ["b"]], [202, ["c"]], [403, ["b"]], [202, ["d"]]]) {
    const request = await asked();
    assert.deepEqual(request.join, names);
    request.answer(status);
  }
  assert.deepEqual(await Promise.all(joins), [403, "done", 403, "done"]);
  assert.deepEqual([...client.channels], ["a", "c", "d"]);
});

test("a leave right after a join wins, also when the join is confirmed late", async () => {
  connect("shared~1");
  const both = [change("join", "b"), change("leave", "b")];
  await answered(202, "shared~1");
  assert.deepEqual(await Promise.all(both), ["done", "done"]);
  client.tab.channels.apply({ joined: ["b"], left: [] });
  assert.deepEqual([[...client.tab.channels.joined], [...client.channels]], [["a"], ["a"]]);
});

test("a leave that its connection could not answer is asked for on the next", async () => {
  client.tab.shared = false;
  connect("own");
  const left = change("leave", "a");
  const request = await asked();
  assert.deepEqual(request.leave, ["a"]);
  connect("other");
  request.answer(202);
  await answered(202, "other");
  assert.equal(await left, "done");
});

test("what waits is rejected if the server closes the client, and resolves if the page closes it", async () => {
  connect("own");
  const joins = [change("join", "b"), change("join", "c"), change("leave", "a")];
  await asked();
  connect(null);
  client.closing.abort({ reason: "refused", status: 401, error: { message: "log in" } });
  assert.deepEqual(await Promise.all(joins), [401, 401, 401]);
  client.changes = ChannelChanges.of((client.trouble = {}), base, {});
  client.closing = new AbortController();
  const waiting = change("join", "b");
  client.closing.abort();
  assert.equal(await waiting, "done");
});

test("a server that cannot change an open stream is asked by a new connection", async () => {
  connect("own");
  const joined = change("join", "b");
  (await asked()).answer(404);
  await reopened();
  assert.deepEqual([client.tab.has("b"), client.changes.isUndecided("b")], [true, false]);
  connect("new");
  assert.equal(await joined, "done");
  assert.deepEqual(requests, []);
});
