"""Which id an event has, which cursor the client sends, and when it obeys the server's `retry`."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import Visitor, eventually_on
from .script import Refusal, Script, Started, event, note, noted, opening
from .test_push_client import script, start, visitor

__all__ = ["script", "start", "visitor"]

both = pytest.mark.parametrize("options", [{}, {"transport": "fetch"}], ids=["EventSource", "fetch"])


@both
def test_events_without_an_id_keep_the_id_after_a_reconnection(
    script: Script, start: Started, options: dict[str, Any]
) -> None:
    script.then(opening(id="e-1") + event(1, id="e-2") + Script.END, event(2) + event(3, id="e-3") + event(4))
    page = start(note("message"), minDelay=1, **options)
    eventually_on(page, lambda: page.evaluate("notes.some(({ data }) => data === 4)"))
    found = page.evaluate(
        "notes.filter(({ type }) => type).map(({ data, lastEventId }) => [data, lastEventId])"
    )
    assert found == [[1, "e-2"], [2, "e-2"], [3, "e-3"], [4, "e-3"]]
    assert page.evaluate("client.lastEventId") == "e-3"


@both
def test_an_empty_id_resets_the_cursor(script: Script, start: Started, options: dict[str, Any]) -> None:
    reset = opening(id="e-1") + "id\ndata: 1\n\n" + event(2)
    script.then(reset + Script.END, opening(id="e-5"))
    page = start(note("message"), minDelay=1, **options)
    eventually_on(page, lambda: len(script.requests) == 2)
    found = page.evaluate(
        "notes.filter(({ type }) => type).map(({ data, lastEventId }) => [data, lastEventId])"
    )
    assert found == [[1, ""], [2, ""]]
    assert script.cursors == [None, None]


def test_an_id_without_data_moves_the_cursor(script: Script, start: Started) -> None:
    script.then(
        opening() + event(1, id="e-2") + "id: e-3\n\nid: e-4\ndata: never ended" + Script.END, opening()
    )
    page = start(note("*"), minDelay=1)
    eventually_on(page, lambda: len(script.requests) == 2)
    assert script.cursors == [None, "e-3"]
    assert page.evaluate("notes.filter(({ type }) => type === 'message').length") == 1
    assert page.evaluate("client.stats.errors") == 1  # the end of the connection


@both
def test_a_cursor_in_the_address_is_the_first_cursor(
    script: Script, start: Started, options: dict[str, Any]
) -> None:
    script.then(opening(id="") + "id\ndata: 1\n\n" + Script.END, opening())
    page = start("close()")
    first = page.evaluate(
        """async (options) => {
          const { PushClient } = await import("/client/push-client.js");
          window.client = new PushClient("/stream?last_event_id=e-7&channels=a", { minDelay: 1, ...options });
          return client.lastEventId;
        }""",
        options,
    )
    assert first == "e-7"
    eventually_on(page, lambda: len(script.requests) == 2)
    # EventSource shows no empty id before it has shown another.
    assert script.cursors == ["e-7", None if options else "e-7"]


@both
def test_the_servers_retry_is_the_minimum_delay(
    script: Script, start: Started, options: dict[str, Any]
) -> None:
    opened = event({"channels": ["a"], "resumed": False, "heartbeat": 15, "retry": 60_000}, "sse.open", "e-1")
    script.then(f"retry: 60000\n{opened}{Script.END}")
    page = start("close; Math.random = () => 0.5", minDelay=1, maxDelay=10**6, **options)
    assert noted(page, 2)[1]["delay"] == 30_000


LONGEST = 2 * 10**9  # milliseconds; a timer with more than 2**31 - 1 fires at once


@pytest.mark.parametrize(
    ("more", "options"),
    [
        ({"retry": 10**12}, {"maxDelay": 10**12}),
        ({"retry": 10**400}, {"maxDelay": 10**12}),
        ({}, {"minDelay": 10**12, "maxDelay": 10**12}),
    ],
    ids=["retry", "infinite retry", "options"],
)
def test_the_longest_delay_is_that_of_a_timer(
    script: Script, start: Started, more: dict[str, Any], options: dict[str, Any]
) -> None:
    opened = event({"channels": ["a"], "resumed": False, "heartbeat": 15, **more}, "sse.open", "e-1")
    script.then(opened + Script.END)
    delay = noted(start("close; Math.random = () => 0.9", **options), 2)[1]["delay"]
    assert 10**9 < delay <= LONGEST


def test_the_delay_of_a_close_is_at_most_that_of_a_timer(script: Script, start: Started) -> None:
    close = event({"reason": "drain", "reconnect": True, "retry": 10**12}, "sse.close")
    script.then(opening() + close + Script.END)
    assert noted(start("close"), 2)[1]["delay"] == LONGEST


def test_a_retry_that_is_no_number_does_not_count(script: Script, start: Started) -> None:
    opened = event({"channels": ["a"], "resumed": False, "heartbeat": 15, "retry": "soon"}, "sse.open", "e-1")
    script.then(opened + Script.END)
    page = start("close; Math.random = () => 0.5", minDelay=20_000)
    assert noted(page, 2)[1]["delay"] == 10_000


@both
@pytest.mark.parametrize("type", ["Text/Event-Stream; charset=utf-8", "text/event-stream;x=y"])
def test_mime_types_are_read_as_the_standard_says(
    script: Script, start: Started, options: dict[str, Any], type: str
) -> None:
    script.then(Refusal(200, {"Content-Type": type}, (opening() + event(1)).encode()))
    assert noted(start(note("message"), maxRetries=0, **options), 2)[1]["data"] == 1


@both
def test_a_type_that_only_begins_like_an_event_stream_is_refused(
    script: Script, start: Started, options: dict[str, Any]
) -> None:
    script.then(*[Refusal(200, {"Content-Type": "text/event-streams"}, opening().encode())] * 2)
    (closed,) = noted(start(note("message"), maxRetries=0, **options), 1)
    assert (closed["state"], closed["status"]) == ("closed", 200)


WORKER = """
import { PushClient } from "/client/push-client.js";
const options = Object.fromEntries(new URL(location).searchParams);
const client = new PushClient("../stream?channels=w", options);
client.on("message", ({ data }) => postMessage(data));
"""


@pytest.mark.parametrize("query", ["", "?transport=fetch"])
def test_addresses_in_a_worker_are_relative_to_its_script(
    script: Script, visitor: Visitor, query: str
) -> None:
    script.files["/workers/worker.js"] = Refusal(200, {"Content-Type": "text/javascript"}, WORKER.encode())
    script.then(opening() + event("from a worker"))
    visitor.page.goto(script.url)
    received = visitor.page.evaluate(
        """(query) => new Promise((done, fail) => {
          window.worker = new Worker(`/workers/worker.js${query}`, { type: "module" });
          worker.onmessage = ({ data }) => done(data);
          worker.onerror = ({ message }) => fail(message);
        })""",
        query,
    )
    assert received == "from a worker"
    assert script.requests[0].query["channels"] == ["w"]
    visitor.page.evaluate("worker.terminate()")
    visitor.expect_network_errors()


def test_addresses_are_relative_to_the_base_of_the_document(script: Script, start: Started) -> None:
    script.then(opening() + event(1))
    page = start("close()")
    page.evaluate(
        """async () => {
          const { PushClient } = await import("/client/push-client.js");
          document.head.append(Object.assign(document.createElement("base"), { href: "/deep/er/" }));
          window.client = new PushClient("../../stream");
          client.on("message", ({ data }) => notes.push(data));
        }"""
    )
    eventually_on(page, lambda: page.evaluate("notes.includes(1)"))
