"""The fetch transport: features that EventSource does not have, and the same guarantees."""

from __future__ import annotations

import json
from typing import Any

from .conftest import eventually_on
from .script import Refusal, Script, Started, event, note, noted, opening
from .test_push_client import script, start, visitor

__all__ = ["script", "start", "visitor"]


def test_headers_are_sent_with_each_connection(script: Script, start: Started) -> None:
    script.then(opening() + Script.END, opening(resumed=True) + event(1))
    page = start(note("message"), headers={"X-Tenant": "7"}, **{"minDelay": 1})
    eventually_on(page, lambda: page.evaluate("notes.some(({ data }) => data === 1)"))
    assert [one.headers["x-tenant"] for one in script.requests] == ["7", "7"]
    assert script.cursors == [None, "e-1"]


WITH_TOKENS = """async () => {
  const { PushClient } = await import("/client/push-client.js");
  window.notes = [];
  let number = 0;
  window.client = new PushClient("/stream", {
    minDelay: 1,
    token: async () => { if (number++ === 1) throw new Error("no token yet"); return `t${number}`; },
    headers: () => new Headers({ "X-Number": String(number) }),
  });
  client.on("message", (message) => notes.push(message));
}"""


def test_functions_in_the_options_are_called_for_each_connection(script: Script, start: Started) -> None:
    script.then(opening() + Script.END, opening(resumed=True) + event(1))
    page = start("close()")
    script.requests.clear()
    page.evaluate(WITH_TOKENS)
    noted(page, 1)
    assert [one.headers["authorization"] for one in script.requests] == ["Bearer t1", "Bearer t3"]


def test_a_body_is_posted(script: Script, start: Started) -> None:
    script.then(opening() + event(1))
    noted(start(note("message"), method="POST", body={"prompt": "é"}), 2)
    (request,) = script.requests
    assert (request.method, json.loads(request.body)) == ("POST", {"prompt": "é"})
    assert request.headers["content-type"] == "application/json"
    assert request.headers["accept"] == "text/event-stream"


def test_a_star_handler_gets_events_of_all_types(script: Script, start: Started) -> None:
    script.then(opening() + event(1, "surprise", "e-2") + event(2))
    page = start(note("*"))
    assert [one.get("type") for one in noted(page, 4)] == [None, "sse.open", "surprise", "message"]
    assert page.evaluate("client.lastEventId") == "e-2"


def test_a_star_handler_may_be_added_later(script: Script, start: Started) -> None:
    script.then(opening(), opening(resumed=True) + event(1, "surprise"))
    page = start()
    eventually_on(page, lambda: page.evaluate("client.state") == "open")
    page.evaluate(f"client.{note('*')}")
    eventually_on(page, lambda: page.evaluate("notes.some(({ type }) => type === 'surprise')"))
    assert script.cursors == [None, "e-1"]


def test_a_refusal_is_reported_at_once(script: Script, start: Started) -> None:
    error = {"code": 1103, "name": "AUTH_EXPIRED"}
    script.then(Refusal(401, {"Content-Type": "application/json"}, json.dumps(error).encode()))
    (closed,) = noted(start(transport="fetch"), 1)
    assert (closed["state"], closed["status"], closed["error"]) == ("closed", 401, error)


def test_retry_is_the_minimum_delay(script: Script, start: Started) -> None:
    script.then("retry: 60000\n" + opening() + Script.END)
    page = start("close; Math.random = () => 0.5", transport="fetch", minDelay=1, maxDelay=10**6)
    assert noted(page, 2)[1]["delay"] == 30_000


def test_the_parser_follows_the_standard(script: Script, start: Started) -> None:
    stream = (
        "\ufeff" + opening() + ": a comment\r\rid: e-2\rdata:no space\rdata:  two\r\ndata\n\n"
        "event: kept\nid: bad\0id\ndata: é😀\u2028\n\n"
        "event: dropped\nid: e-3\n\n"
        "retry: 1x\nunknown: x\ndata: last\n\ndata: never ended"
    )
    script.then(stream)
    page = start(note("message"), note("kept"), note("dropped"), transport="fetch")
    found = [one for one in noted(page, 4) if "type" in one]
    assert found == [
        {"type": "message", "data": "no space\n two\n", "text": "no space\n two\n", "lastEventId": "e-2"},
        {"type": "kept", "data": "é😀\u2028", "text": "é😀\u2028", "lastEventId": "e-2"},
        {"type": "message", "data": "last", "text": "last", "lastEventId": "e-3"},
    ]


PARSE = """async (samples) => {
  const { EventParser } = await import("/client/sources/event-parser.js");
  return samples.map((pieces) => {
    const seen = [];
    const parser = new EventParser({ event: ({ type, data, id }) => seen.push([type, data, id]) });
    for (const piece of pieces) parser.feed(piece);
    return seen;
  });
}"""


def test_the_parser_accepts_text_cut_anywhere(script: Script, start: Started) -> None:
    stream = "id: 1\r\ndata: a\r\n\r\nevent: b\rdata: c\rdata: d\r\revent: e\ndata: f\n\n"
    cuts: list[Any] = [[stream[:at], stream[at:]] for at in range(len(stream) + 1)]
    cuts.append(list(stream))
    script.then(opening())
    page = start(transport="fetch")
    expected = [["message", "a", "1"], ["b", "c\nd", "1"], ["e", "f", "1"]]
    assert page.evaluate(PARSE, cuts) == [expected] * len(cuts)
