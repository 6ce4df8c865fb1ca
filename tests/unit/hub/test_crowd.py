"""Events of one channel for many groups: one chunk for all of them, and no event twice or too little."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from flask_sse_push.config import Settings
from flask_sse_push.history.channel_cache import ChannelCache
from flask_sse_push.hub.crowd import deliver_to_crowd
from flask_sse_push.hub.group import Chunks, Delivery, Group
from flask_sse_push.hub.stream import Stream
from flask_sse_push.protocol.entry import Entry
from flask_sse_push.transports.generator import GeneratorStream


class Chunked(GeneratorStream):
    """A stream of another kind, with a frame around each chunk."""

    __slots__ = ()

    @staticmethod
    def framed(frames: bytes) -> bytes:
        return b"<%b>" % frames


def group(name: str, kind: type[Stream] = GeneratorStream, *, last: int = 0, tagged: bool = False) -> Group:
    """A group of one stream, which has the group's name."""
    made = Group(("common", name), kind, tagged)
    made.add(kind(name, None, ("common", name), Settings()))  # type: ignore[call-arg]
    made.last = last
    return made


def entry(id: int, exclude: str = "") -> Entry:
    return Entry("e0", id, 0, b"data: %d\n\n" % id, frozenset(exclude.split()))


def written(deliveries: Iterable[Delivery]) -> dict[str, bytes]:
    """Writes the deliveries. Returns what each stream got, by name."""
    streams = []
    for delivery in deliveries:
        streams += delivery.recipients.streams
        delivery.write(0, len(delivery.recipients.streams))
    return {stream.connection: b"".join(stream._chunks) for stream in streams}  # type: ignore[attr-defined]


def test_all_groups_of_a_kind_share_one_chunk() -> None:
    groups = [group("a"), group("b"), group("c", Chunked), group("d")]
    deliveries, others = deliver_to_crowd(groups, [entry(1), entry(2)], (), 5.0)
    frames = entry(1).frame + entry(2).frame
    assert (len(deliveries), others) == (2, [])
    assert written(deliveries) == {"a": frames, "b": frames, "c": b"<%b>" % frames, "d": frames}
    assert {(each.last, each.events, each.written_at) for each in groups} == {(2, 2, 5.0)}
    assert [each.streams[0].sent for each in groups[1:3]] == [(2, len(frames)), (2, len(frames) + 2)]


@pytest.mark.parametrize("exclude", ["b", "b c"])
def test_a_stream_does_not_get_an_event_that_excludes_it(exclude: str) -> None:
    groups = [group(name) for name in "abc"]
    deliveries, _ = deliver_to_crowd(groups, [entry(1, exclude), entry(2)], (), 5.0)
    for name, got in written(deliveries).items():
        assert (b"data: 1\n" not in got, b"data: 2\n" in got) == (name in exclude, True)


def test_groups_that_need_other_bytes_or_have_an_entry_already_stay_apart() -> None:
    crowd = [group("a"), group("b")]
    tagged, ahead, busy = group("t", tagged=True), group("n", last=1), group("x")
    groups = [crowd[0], tagged, ahead, busy, crowd[1]]
    deliveries, others = deliver_to_crowd(groups, [entry(1), entry(2)], {busy}, 5.0)
    assert others == [tagged, ahead, busy]
    assert written(deliveries).keys() == {"a", "b"}
    assert [(each.last, each.events) for each in others] == [(0, 0), (1, 0), (0, 0)]
    for each in (entry(1), entry(2)):
        ahead.collect(each, ChannelCache(1))
    assert written(ahead.deliveries(5.0, Chunks())) == {"n": entry(2).frame}


def test_a_stream_that_leaves_before_the_chunk_is_written_does_not_change_who_gets_it() -> None:
    groups = [group("a"), group("b")]
    deliveries, _ = deliver_to_crowd(groups, [entry(1)], (), 5.0)
    groups[0].remove(groups[0].streams[0])
    groups[1].add(GeneratorStream("new", None, ("common", "b"), Settings()))
    assert written(deliveries).keys() == {"a", "b"}
