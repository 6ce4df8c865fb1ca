"""Defects that were found once, each with the smallest case that shows it."""

from __future__ import annotations

from enum import Enum

from flask_sse_push.brokers.base import channel_history
from flask_sse_push.brokers.memory import MemoryBroker
from flask_sse_push.history.channel_cache import ChannelCache, Coverage
from flask_sse_push.history.chunk import ChunkCache
from flask_sse_push.history.fetcher import HistoryFetcher, HistoryReply
from flask_sse_push.history.history_cache import HistoryCache
from flask_sse_push.history.position import Snapshot, StartPoint
from flask_sse_push.history.read_queue import ChannelRead
from flask_sse_push.history.recovery import MissedEvents
from flask_sse_push.history.recovery_driver import ShardRecovery
from flask_sse_push.protocol.channel import checked_channel
from flask_sse_push.protocol.entry import Entry, Publication
from flask_sse_push.protocol.event import checked_once, make_event
from tests.support.policies import keeping


def test_a_request_merged_while_its_call_is_under_way_is_not_taken_for_a_loss() -> None:
    broker = MemoryBroker(keeping(100, 3600.0))
    first, _ = (broker.publish([Publication(b"data: x\n\n", ("a",))])[0] for _ in range(2))
    fetcher = HistoryFetcher(broker, "w", lambda reply: None, 5)
    link = broker.link("w")
    history_cache = HistoryCache(fetcher, keeping(100, 3600.0), 10**6)
    history_cache.enter("a")
    link.subscribe(["a"])
    history_cache.take([link.read(0)])
    read = fetcher.queue.take()
    assert isinstance(read, ChannelRead)
    after = {name: min(request.after for request in several) for name, several in read.requests.items()}
    history = broker.history(after, "w")
    history_cache.enter("a")
    recovery = ShardRecovery(history_cache, ("a",), StartPoint(str(first)))
    assert recovery.must_wait()  # merged with the request under way
    history_cache.take(
        [
            HistoryReply(fetcher.generation, read.requests, after, frozenset(read.requests), history),
            link.read(0),
        ]
    )
    assert history_cache.caches["a"].coverage(first.id) is Coverage.ABSENT


def test_a_horizon_beyond_a_channels_first_event_takes_nothing_from_it() -> None:
    entries = [Entry("ab", id, prev, b"data: x\n\n") for id, prev in ((100, -7), (150, 100), (250, 150))]
    found = channel_history(0, entries, 250, horizon=200)
    assert (found.start, [entry.id for entry in found.entries]) == (7, [100, 150, 250])


def test_a_gap_in_the_middle_of_a_list_is_found() -> None:
    entries = [Entry("ab", id, prev, b"data: x\n\n") for id, prev in ((100, 90), (250, 150))]
    found = channel_history(95, entries, 250, horizon=0)
    assert (found.start, [entry.id for entry in found.entries]) == (150, [250])


class Evil(str):
    """A string that formats as another text."""

    def __format__(self, spec: str) -> str:
        return "x\ndata: injected"

    __str__ = __repr__ = lambda self: "x\ndata: injected"


class Name(str, Enum):  # noqa: UP042 - many apps have such an enum, and a StrEnum formats otherwise
    NEWS = "news"


def test_subclasses_of_str_go_out_as_their_characters() -> None:
    assert make_event(Evil("text"), Evil("kind")).encode() == b"event: kind\ndata: text\n\n"
    assert make_event(Name.NEWS, Name.NEWS).encode() == b"event: news\ndata: news\n\n"
    for check in (checked_channel, checked_once):
        assert type(check(Name.NEWS)) is str
        assert f"{check(Evil('news'))}" == "news"


def test_the_newest_events_are_counted_without_expired_ones() -> None:
    cache = ChannelCache(100)
    entries = [Entry("ab", n, n - 1, b"", expires=50 if n > 3 else 0) for n in range(1, 6)]
    cache.adopt(channel_history(0, entries, 5, 0), after=0, last=60, known=0)
    missed = MissedEvents(("a",), StartPoint(newest=2))
    snapshot = Snapshot("ab", 60, 60)
    missed.begin({"a": cache}, snapshot)
    assert [entry.id for entry in missed.take({"a": cache}, snapshot, ChunkCache()).entries] == [2, 3]
