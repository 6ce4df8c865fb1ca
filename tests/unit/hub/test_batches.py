"""Batches: which events they hold, how long events wait, and when a group sends them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import httpx
import pytest
from httpx_sse import EventSource, ServerSentEvent
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_sse_push.config import MAX_BATCH_MS, Settings
from flask_sse_push.history.channel_cache import ChannelCache
from flask_sse_push.hub.batches import STEPS_MS, BatchPolicy, BatchQueue, batch_wait
from flask_sse_push.hub.batching_group import BatchingGroup
from flask_sse_push.hub.group import Chunks, Delivery, frames_for
from flask_sse_push.hub.stream import Stream
from flask_sse_push.protocol import batch
from flask_sse_push.protocol.batch import MAX_BYTES, MAX_EVENTS, pack
from flask_sse_push.protocol.channel import BROADCAST
from flask_sse_push.protocol.cursor import base36
from flask_sse_push.protocol.entry import Entry
from flask_sse_push.protocol.event import MAX_TYPE, make_event, plain_line_ends


def batching(*waits: tuple[str, int]) -> BatchPolicy:
    """Decides by the setting `SSE_PUSH_BATCH_MS` alone."""
    return BatchPolicy(Settings(batch_ms=waits).policies)


def entry(
    id: int, data: str = "x", type: str | None = None, retry: int | None = None, exclude: str = ""
) -> Entry:
    body = make_event(data, type, retry=retry).encode()
    return Entry("e0", id, 0, body, frozenset(exclude.split()))


def decoded(stream: bytes) -> list[ServerSentEvent]:
    """The events that another decoder finds in a stream."""
    response = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=stream)
    return list(EventSource(response).iter_sse())


# -- which events a batch holds ------------------------------------------------------------------------------

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
tricky = st.sampled_from(
    ["", "\n", "a\r\nb\rc", "\u2028", "\0", "data: x", "\ufeff", "id: evil\n\nevent: e", "ü😀"]
)
one_line = st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="*")
types = st.none() | st.text(one_line, min_size=1, max_size=MAX_TYPE)
events = st.lists(
    st.tuples(
        tricky | text,
        types.filter(lambda type: type is None or not type.startswith("sse.")),
        st.none() | st.integers(0, 10**6),
    ),
    max_size=30,
)


@settings(deadline=None)
@given(events, st.integers(1, 5))
def test_a_batch_holds_its_events_as_they_would_have_come_alone(
    events: Sequence[tuple[str, str | None, int | None]], most: int
) -> None:
    entries = [entry(at + 1, *event) for at, event in enumerate(events)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "MAX_EVENTS", most)
        batches = decoded(pack([each.frame for each in entries]))
    messages = []
    for packed in batches:
        assert packed.event == "sse.batch"
        inside = json.loads(packed.data)
        assert 0 < len(inside) <= most
        assert inside[-1]["id"] == packed.id
        messages += inside
    assert messages == [
        {"type": type or "message", "data": plain_line_ends(data), "id": f"e0-{base36(at + 1)}"}
        for at, (data, type, _) in enumerate(events)
    ]
    wished = [retry for _, _, retry in events if retry is not None]
    assert [packed.retry for packed in batches if packed.retry is not None][-1:] == wished[-1:]


def test_text_beyond_ascii_is_not_escaped() -> None:
    assert "€😀".encode() in pack([entry(1, "€😀").frame])


def test_big_events_fill_a_batch_before_many_do() -> None:
    batches = decoded(pack([entry(n, "x" * 30_000).frame for n in range(1, 6)]))
    assert [len(json.loads(batch.data)) for batch in batches] == [2, 2, 1]
    assert [
        len(json.loads(b.data)) for b in decoded(pack([entry(1, "x" * 2 * MAX_BYTES).frame, entry(2).frame]))
    ] == [
        1,
        1,
    ]


def test_a_stream_does_not_get_events_that_exclude_it_but_its_cursor_moves_on() -> None:
    stream = Recorder()
    both = [entry(1, "for all"), entry(2, "not for one", exclude="one")]
    got = decoded(frames_for(stream, both, batched=True))
    assert [event.event for event in got] == ["sse.batch", "sse.heartbeat"]
    assert (json.loads(got[0].data)[0]["data"], got[1].id) == ("for all", "e0-2")
    got = decoded(frames_for(stream, [both[1], entry(3, "again for all")], batched=True))
    assert [(event.event, event.id) for event in got] == [("sse.batch", "e0-3")]
    assert [event.event for event in decoded(frames_for(stream, both[1:], batched=True))] == ["sse.heartbeat"]
    assert frames_for(stream, [], batched=True) == b""


# -- how long events wait ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted_ms", "seconds"),
    [
        (0, 0.0),
        (1, 0.01),
        (10, 0.01),
        (24, 0.01),
        (25, 0.025),
        (99, 0.05),
        (100, 0.1),
        (249, 0.1),
        (5000, 5.0),
    ],
)
def test_the_wanted_wait_is_rounded_down_to_a_step(wanted_ms: int, seconds: float) -> None:
    assert batch_wait(wanted_ms) == seconds


def test_the_longest_step_is_the_longest_wait_that_may_be_asked_for() -> None:
    assert STEPS_MS[-1] == MAX_BATCH_MS
    assert len({batch_wait(ms) for ms in range(MAX_BATCH_MS + 1)}) == len(STEPS_MS) + 1


DEFAULTS = batching(("ticks:fast", 0), ("ticks:*", 200), ("prices", 50))


@pytest.mark.parametrize(
    ("channels", "wanted", "waits"),
    [
        (("news", BROADCAST), None, None),
        (("ticks:a", BROADCAST), None, {"ticks:a": 0.2, BROADCAST: 0}),
        (("ticks:a", "prices", "news"), None, {"ticks:a": 0.2, "prices": 0.05, "news": 0}),
        (("ticks:fast",), None, None),
        (("ticks:a", "news"), 0.0, None),
        (("ticks:a", BROADCAST), 1.0, {"ticks:a": 1.0, BROADCAST: 1.0}),
    ],
)
def test_what_the_client_asked_for_counts_before_the_apps_defaults(
    channels: tuple[str, ...], wanted: float | None, waits: dict[str, float] | None
) -> None:
    assert DEFAULTS.waits(channels, wanted) == waits


def test_a_broadcast_never_waits_by_a_pattern() -> None:
    assert batching(("*", 100)).waits((BROADCAST,), None) is None
    assert batching().waits(("a",), None) is None


# -- when a group sends --------------------------------------------------------------------------------------


class Recorder(Stream):
    """A stream that keeps its chunks."""

    def __init__(self) -> None:
        super().__init__("one", None, ("a", "b"))
        self.chunks: list[bytes] = []

    def write(self, chunk: bytes) -> None:
        self.chunks.append(chunk)

    def end(self, frame: bytes) -> None:
        raise NotImplementedError

    def cut_if_stuck(self, now: float) -> bool:
        return False


class OneGroup:
    """A group with one stream. Events of channel a wait 1 s, events of channel b 0.25 s."""

    def __init__(self, slow: float = 1.0, fast: float = 0.25) -> None:
        self.queue = BatchQueue()
        self.a, self.b = ChannelCache(10), ChannelCache(10)
        self.group = BatchingGroup(
            ("a", "b", BROADCAST), Recorder, False, None, {self.a: slow, self.b: fast}, self.queue
        )
        self.stream = Recorder()
        self.group.add(self.stream)

    def dispatch(
        self, now: float, *offers: tuple[ChannelCache, Entry], notice: bytes = b""
    ) -> list[list[str]]:
        """Dispatches entries; returns the data of each batch that is sent."""
        for cache, each in offers:
            self.group.collect(each, cache)
        return self.batches(self.group.deliveries(now, Chunks(), notice))

    def due(self, now: float) -> list[list[str]]:
        """The data of each batch that must be sent by now."""
        return self.batches([each for group in self.queue.take(now) for each in group.deliveries(now, {})])

    def batches(self, deliveries: list[Delivery]) -> list[list[str]]:
        for delivery in deliveries:
            delivery.write(0, len(delivery.recipients.streams))
        stream, self.stream.chunks = b"".join(self.stream.chunks), []
        return [
            [message["data"] for message in json.loads(event.data)] if event.event == "sse.batch" else ["!"]
            for event in decoded(stream)
        ]


def test_events_wait_for_others_and_go_together() -> None:
    scene = OneGroup()
    assert scene.dispatch(10.0, (scene.a, entry(1, "1"))) == []
    assert scene.dispatch(10.5, (scene.a, entry(2, "2")), (scene.a, entry(3, "3"))) == []
    assert scene.queue.next_due == pytest.approx(11.0)
    assert scene.due(10.99) == []
    assert scene.due(11.0) == [["1", "2", "3"]]
    assert (scene.group.written_at, scene.group.pending) == (11.0, [])
    assert scene.queue.next_due == math.inf


def test_a_batch_is_sent_when_its_most_urgent_event_must_be() -> None:
    scene = OneGroup()
    assert scene.dispatch(10.0, (scene.a, entry(1, "slow"))) == []
    assert scene.dispatch(10.1, (scene.b, entry(2, "fast"))) == []
    assert scene.due(10.34) == []
    assert scene.due(10.36) == [["slow", "fast"]]
    assert scene.due(12.0) == []


def test_an_event_of_two_channels_comes_once_after_the_shorter_wait() -> None:
    scene = OneGroup()
    twin = entry(1, "twin")
    assert scene.dispatch(10.0, (scene.a, twin), (scene.b, twin)) == []
    assert scene.due(10.25) == [["twin"]]
    assert scene.dispatch(10.3, (scene.a, twin)) == []
    assert scene.due(20.0) == []


def test_an_event_that_may_not_wait_is_sent_at_once() -> None:
    scene = OneGroup(fast=0.0)
    assert scene.dispatch(10.0, (scene.a, entry(1, "slow"))) == []
    assert scene.dispatch(10.1, (scene.b, entry(2, "now"))) == [["slow", "now"]]


def test_a_full_batch_does_not_wait() -> None:
    scene = OneGroup()
    many = [(scene.a, entry(n, str(n))) for n in range(1, MAX_EVENTS + 6)]
    assert scene.dispatch(10.0, *many[: MAX_EVENTS - 1]) == []
    sent = scene.dispatch(10.1, *many[MAX_EVENTS - 1 :])
    assert [len(batch) for batch in sent] == [MAX_EVENTS, 5]
    assert scene.dispatch(10.2, (scene.a, entry(200, "x" * 40_000))) == []
    assert len(scene.dispatch(10.3, (scene.a, entry(201, "x" * 40_000)))) == 2


def test_after_a_full_batch_the_next_one_waits_its_own_time() -> None:
    scene = OneGroup()
    scene.dispatch(10.0, *[(scene.a, entry(n)) for n in range(1, MAX_EVENTS + 1)])
    assert scene.dispatch(10.9, (scene.a, entry(200, "next"))) == []
    assert scene.due(11.0) == []
    assert scene.due(11.9) == [["next"]]


def test_a_notice_is_sent_at_once_with_the_events_after_it() -> None:
    scene = OneGroup()
    notice = b"event: sse.reset\ndata: {}\n\n"
    assert scene.dispatch(10.0, (scene.a, entry(1, "after")), notice=notice) == [["!"], ["after"]]
    assert scene.dispatch(10.0, notice=notice) == [["!"]]
    assert scene.dispatch(10.0) == []


def test_groups_are_taken_out_in_the_order_of_their_times() -> None:
    waiting = BatchQueue()
    groups: list[Any] = [object(), object(), object()]
    for group, due in zip(groups, (3.0, 1.0, 3.0), strict=True):
        waiting.add(group, due)
    assert waiting.next_due == 1.0
    assert waiting.take(0.9) == []
    assert waiting.take(2.0) == [groups[1]]
    assert waiting.next_due == 3.0
    assert waiting.take(3.0) == [groups[0], groups[2]]
    assert waiting.next_due == math.inf


def test_a_batch_names_the_channels_of_tagged_events() -> None:
    tagged = Entry("e0", 1, 0, make_event("x").encode(), channels=("a", "b", "c"))
    (batch,) = decoded(pack([tagged.tagged(("a", "c", BROADCAST))]))
    assert json.loads(batch.data) == [{"type": "message", "data": "x", "id": "e0-1", "channels": ["a", "c"]}]
