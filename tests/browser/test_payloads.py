"""Compressed events and batches: the client unpacks them in order, and skips only a broken event."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

import pytest

from flask_sse_push import payload
from flask_sse_push.protocol.data import MARK, PACKED
from flask_sse_push.protocol.event import Event

from .conftest import eventually_on
from .script import Script, Started, event, note, noted, opening, packed_event
from .test_push_client import script, start, visitor

__all__ = ["script", "start", "visitor"]


def packed(value: Any) -> Any:
    compressed = payload.compress(value, threshold=0)
    assert payload.is_envelope(compressed)
    return compressed


def envelope(raw: bytes) -> dict[str, Any]:
    return {"compressed": True, "encoding": "gzip+base64", "data": base64.b64encode(raw).decode()}


BIG = {"text": "é😀 " * 5000, "list": list(range(1000))}


def test_compressed_events_are_unpacked_in_order(script: Script, start: Started) -> None:
    inner = packed(["an envelope in an envelope is data " * 10])
    stream = event(1, id="e-2") + packed_event(packed(BIG), id="e-3") + event(2, id="e-4")
    stream += packed_event(payload.compress_event(Event("plain text " * 500)).data, id="e-5")
    stream += packed_event(packed([inner] * 20), id="e-6")
    script.then(opening() + stream + event(3, id="e-7"))
    page = start(note("message"))
    found = noted(page, 7)[1:]
    assert [one["data"] for one in found] == [1, BIG, 2, "plain text " * 500, [inner] * 20, 3]
    assert [one["lastEventId"] for one in found] == [f"e-{n}" for n in range(2, 8)]


BROKEN = {
    "bomb": envelope(gzip.compress(b"0" * 5000)),
    "cut": envelope(gzip.compress(b"x" * 100)[:-9]),
    "wrong sum": envelope(gzip.compress(b"x" * 100)[:-8] + b"\0" * 8),
    "trailing": envelope(gzip.compress(b"x" * 100) + b"more"),
    "no gzip": envelope(b"hello"),
    "no UTF-8": envelope(gzip.compress(b"\xff\xfe")),
    "no base64": {"compressed": True, "encoding": "gzip+base64", "data": "~~~"},
    "no text": {"compressed": True, "encoding": "gzip+base64", "data": 7},
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_event_is_skipped_and_reported(script: Script, start: Started, name: str) -> None:
    script.then(opening() + event(1, id="e-2") + packed_event(BROKEN[name], id="e-3") + event(2, id="e-4"))
    failed = 'addEventListener("error", ({ detail }) => notes.push([detail.reason, detail.lastEventId]))'
    page = start(note("message"), failed, maxInflated=4999)
    found = noted(page, 4)[1:]
    assert [one["data"] if isinstance(one, dict) else one for one in found] == [1, ["payload", "e-3"], 2]
    assert page.evaluate("[client.state, client.lastEventId]") == ["open", "e-4"]


def test_data_that_only_looks_like_an_envelope_stays_as_it_is(script: Script, start: Started) -> None:
    likes = [
        {"compressed": True},
        {"compressed": True, "encoding": "br", "data": ""},
        {"compressed": True, "encoding": "gzip+base64", "data": "", "more": 1},
    ]
    script.then(opening() + "".join(packed_event(data) for data in likes))
    assert [one["data"] for one in noted(start(note("message")), 4)[1:]] == likes


def test_an_envelope_that_the_server_did_not_pack_stays_as_it_is(script: Script, start: Started) -> None:
    forged = envelope(gzip.compress(b"0" * 5000))
    alone = [event(json.dumps(forged) + mark) for mark in ("", MARK, f" {MARK}")]
    members = [{"data": json.dumps(forged) + mark, "id": "e-2"} for mark in ("", MARK)]
    script.then(opening() + "".join(alone) + event(members, "sse.batch", "e-2") + event(1, id="e-3"))
    page = start(note("message"), maxInflated=4999)
    assert [one["data"] for one in noted(page, 7)[1:]] == [*[forged] * 5, 1]


#: The first "handler": counts how many texts are unpacked at once, and how many were unpacked.
COUNT_UNPACKING = """lastEventId;
  Object.assign(window, { unpacking: 0, most: 0, unpacked: 0, Real: DecompressionStream });
  window.DecompressionStream = class {
    constructor(format) {
      most = Math.max(most, ++unpacking);
      const real = new Real(format);
      const count = new TransformStream({ flush() { unpacking -= 1; unpacked += 1; } });
      return { writable: real.writable, readable: real.readable.pipeThrough(count) };
    }
  }"""


def test_envelopes_are_unpacked_one_after_another(script: Script, start: Started) -> None:
    script.then(opening() + "".join(packed_event(packed(BIG), id=f"e-{n}") for n in range(2, 42)))
    page = start(COUNT_UNPACKING, note("message"))
    noted(page, 41)
    assert page.evaluate("[most, unpacked]") == [1, 40]


def test_a_closed_client_unpacks_no_more(script: Script, start: Started) -> None:
    script.then(opening() + "".join(packed_event(packed(BIG), id=f"e-{n}") for n in range(2, 42)))
    page = start(COUNT_UNPACKING, 'on("message", (message) => { notes.push(message); client.close(); })')
    noted(page, 2)
    eventually_on(page, lambda: page.evaluate("unpacking") == 0)
    assert page.evaluate("unpacked") <= 2


def test_a_connection_lost_while_unpacking_loses_and_repeats_no_event(script: Script, start: Started) -> None:
    first = event(1, id="e-2") + packed_event(packed(BIG), id="e-3") + event(2, id="e-4")
    goodbye = event({"reason": "drain", "reconnect": True, "retry": 1}, "sse.close")
    script.then(opening() + first + goodbye)
    page = start(note("message"), note("sse.close"))
    eventually_on(page, lambda: len(script.requests) == 2)
    assert script.cursors == [None, "e-4"]
    script.then(opening(id="e-4", resumed=True) + packed_event(packed(BIG), id="e-5") + Script.END)
    eventually_on(page, lambda: len(script.requests) == 3)
    after = script.cursors[-1]
    script.then(
        opening(resumed=True)
        + (packed_event(packed(BIG), id="e-5") if after == "e-4" else "")
        + event(3, id="e-6")
    )
    eventually_on(page, lambda: page.evaluate("notes.at(-1).data") == 3)
    received = page.evaluate(
        "notes.filter(({ type }) => type === 'message').map(({ lastEventId }) => lastEventId)"
    )
    assert received == ["e-2", "e-3", "e-4", "e-5", "e-6"]


def batch(*items: tuple[Any, str | None, str]) -> str:
    marks = [PACKED if payload.is_envelope(data) else "" for data, _, _ in items]
    texts = [data if isinstance(data, str) else json.dumps(data) for data, _, _ in items]
    members = [
        {"data": text + mark, "id": id} | ({"type": type} if type else {})
        for text, mark, (_, type, id) in zip(texts, marks, items, strict=True)
    ]
    return event(members, "sse.batch", items[-1][2])


def test_handlers_get_the_events_of_a_batch_one_by_one(script: Script, start: Started) -> None:
    script.then(
        opening()
        + batch(
            ({"n": 1}, None, "e-2"), ("text", "kind", "e-3"), (packed(BIG), None, "e-4"), (4, None, "e-5")
        )
        + event(5, id="e-6")
    )
    page = start(note("message"), note("kind"), batch=100)
    found = noted(page, 6)[1:]
    assert [(one["type"], one["data"], one["lastEventId"]) for one in found] == [
        ("message", {"n": 1}, "e-2"),
        ("kind", "text", "e-3"),
        ("message", BIG, "e-4"),
        ("message", 4, "e-5"),
        ("message", 5, "e-6"),
    ]
    assert script.requests[0].query["batch"] == ["100"]


def test_a_client_closed_within_a_batch_has_the_last_cursor(script: Script, start: Started) -> None:
    script.then(opening() + batch((1, None, "e-2"), (2, None, "e-3"), (3, None, "e-4")))
    page = start(
        'on("message", (message) => { notes.push(message); if (message.data === 2) client.close(); })'
    )
    noted(page, 4)
    assert [one.get("data") for one in page.evaluate("notes") if "type" in one] == [1, 2]
    assert page.evaluate("[client.state, client.lastEventId]") == ["closed", "e-3"]


# -- batches that cannot be read -----------------------------------------------------------------------------

FAILED = (
    'addEventListener("error", ({ detail }) => notes.push([detail.type, detail.reason, detail.lastEventId]))'
)


@pytest.mark.parametrize("data", ["null", "5", '"text"', "{}", "[", '{"length": 2}'])
@pytest.mark.parametrize("options", [{}, {"transport": "fetch"}], ids=["native", "fetch"])
def test_a_batch_that_is_no_list_is_told_and_the_stream_goes_on(
    script: Script, start: Started, data: str, options: dict[str, Any]
) -> None:
    script.then(opening() + event(1, id="e-2") + event(data, "sse.batch", "e-3") + event(2, id="e-4"))
    page = start(note("message"), FAILED, batch=10, **options)
    found = noted(page, 4)[1:]
    assert [one["data"] if isinstance(one, dict) else one for one in found] == [
        1,
        ["sse.batch", "payload", "e-3"],
        2,
    ]
    assert page.evaluate("[client.state, client.lastEventId]") == ["open", "e-4"]


@pytest.mark.parametrize(
    "member", [None, 5, "x", [], {}, {"data": 7}, {"data": "x", "type": 5}, {"data": None}]
)
def test_a_member_of_a_batch_that_is_no_event_is_told_and_the_others_arrive(
    script: Script, start: Started, member: Any
) -> None:
    members = [{"data": "1", "id": "e-2"}, member, {"data": "2", "id": "e-4"}]
    script.then(opening() + event(members, "sse.batch", "e-4") + event(3, id="e-5"))
    page = start(note("message"), FAILED, batch=10)
    found = noted(page, 5)[1:]
    assert [one["data"] if isinstance(one, dict) else one[:2] for one in found] == [
        1,
        ["sse.batch", "payload"],
        2,
        3,
    ]
    assert page.evaluate("[client.state, client.lastEventId]") == ["open", "e-5"]
