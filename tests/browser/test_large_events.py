"""The client skips an event that is too large, and fires `error`. Later events arrive."""

from __future__ import annotations

import gzip
from base64 import b64encode
from typing import Any

import pytest

from .conftest import eventually_on
from .script import Script, Started, event, noted, opening, packed_event, states
from .test_push_client import script, start, visitor

__all__ = ["script", "start", "visitor"]

TRANSPORTS: dict[str, dict[str, Any]] = {
    "EventSource": {},
    "fetch": {"transport": "fetch"},
    "tabs": {"tabs": True},
}
#: Notes the data of events, and the details of errors.
NOTE = (
    'on("message", ({ data }) => notes.push(data)).on("big", () => notes.push("never"));'
    'client.addEventListener("error", ({ detail: { reason, type, size, lastEventId } }) => '
    "notes.push([reason, type, size, lastEventId]))"
)


def own(frame: str) -> str:
    """Returns the frame with the field `channel:`, which shared streams have."""
    return f"channel: a\n{frame}"


@pytest.mark.parametrize("options", TRANSPORTS.values(), ids=TRANSPORTS.keys())
@pytest.mark.parametrize(
    ("big", "size"),
    [("data: " + "x" * 101, 101), ("data: 123456789\n" * 10 + "data: 12", 102)],
    ids=["line", "lines"],
)
def test_an_event_that_is_too_large_is_skipped_and_told(
    script: Script, start: Started, options: dict[str, Any], big: str, size: int
) -> None:
    fits = event("y" * 100, id="e-2")
    script.then(opening() + own(fits) + own(f"id: e-3\nevent: big\n{big}\n\n") + own(event(3, id="e-4")))
    page = start(NOTE, maxEvent=100, **options)
    assert noted(page, 4)[1:] == ["y" * 100, ["too large", "big", size, "e-3"], 3]
    assert page.evaluate("[client.state, client.lastEventId]") == ["open", "e-4"]
    assert len(script.requests) == 1


@pytest.mark.parametrize("options", TRANSPORTS.values(), ids=TRANSPORTS.keys())
def test_the_cursor_moves_past_a_skipped_event(
    script: Script, start: Started, options: dict[str, Any]
) -> None:
    big = own(event("x" * 101, "big", "e-2"))
    script.then(opening() + big + Script.END, opening(id="e-2", resumed=True) + own(event(3, id="e-3")))
    page = start(NOTE, maxEvent=100, minDelay=1, **options)
    eventually_on(page, lambda: page.evaluate("notes.includes(3)"))
    assert script.cursors == [None, "e-2"]


@pytest.mark.parametrize("options", [{}, {"transport": "fetch"}], ids=["EventSource", "fetch"])
def test_only_the_large_event_of_a_batch_is_skipped(
    script: Script, start: Started, options: dict[str, Any]
) -> None:
    items = [
        {"data": "1", "id": "e-2"},
        {"type": "big", "data": "x" * 101, "id": "e-3"},
        *({"data": f'"{n}{"y" * 90}"', "id": f"e-{n}"} for n in range(4, 9)),
    ]
    script.then(opening() + event(items, "sse.batch", "e-8"))
    page = start(NOTE, maxEvent=100, **options)
    found = noted(page, 8)[1:]
    assert found[:2] == [1, ["too large", "big", 101, "e-3"]]
    assert [text[0] for text in found[2:]] == ["4", "5", "6", "7", "8"]
    assert page.evaluate("client.lastEventId") == "e-8"


@pytest.mark.parametrize("options", TRANSPORTS.values(), ids=TRANSPORTS.keys())
def test_too_much_compressed_text_is_told_with_type_and_size(
    script: Script, start: Started, options: dict[str, Any]
) -> None:
    data = b64encode(gzip.compress(b"0" * 5000)).decode()
    envelope = {"compressed": True, "encoding": "gzip+base64", "data": data}
    script.then(opening() + own(packed_event(envelope, "big", "e-2")) + own(event(3, id="e-3")))
    page = start(NOTE, maxInflated=4999, **options)
    assert noted(page, 3)[1:] == [["payload", "big", 5000, "e-2"], 3]


def test_the_protocols_own_events_may_be_larger(script: Script, start: Started) -> None:
    script.then(opening() + event({"channels": ["a" * 200]}, "sse.reset") + event(1))
    page = start(NOTE, 'on("sse.reset", () => notes.push("reset"))', transport="fetch", maxEvent=10)
    assert noted(page, 3)[1:] == ["reset", 1]
    assert states(page) == [("open", None)]
