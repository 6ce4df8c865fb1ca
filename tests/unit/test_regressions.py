"""Defects that were found once, each with the smallest case that shows it."""

from __future__ import annotations

from enum import Enum

from flask_sse_push.brokers.base import Bounds, Entry, Publication, past
from flask_sse_push.brokers.memory import MemoryBroker
from flask_sse_push.event import checked_channel, checked_once, make_event
from flask_sse_push.fetcher import Answer, Fetcher
from flask_sse_push.replica import Reach, Replica
from flask_sse_push.resume import Moment, Resume, Start
from flask_sse_push.timeline import Timeline
from flask_sse_push.wire import encode_body


def test_a_wish_widened_while_its_call_is_under_way_is_not_taken_for_a_loss() -> None:
    broker = MemoryBroker(Bounds(100, 3600.0))
    first, _ = (broker.publish([Publication(b"data: x\n\n", ("a",))])[0] for _ in range(2))
    fetcher = Fetcher(broker, "w", lambda answer: None, 5)
    link = broker.link("w")
    timeline = Timeline(fetcher, 100, 10**6)
    timeline.enter("a")
    link.subscribe(["a"])
    timeline.take([link.read(0)])
    asks = fetcher._next_asks()
    after = {name: min(ask.after for ask in wishes) for name, wishes in asks.items()}
    history = broker.history(after, "w")
    timeline.enter("a")
    assert timeline.blocks(Resume(("a",), Start(str(first))))  # widens the ask that is under way
    timeline.take([Answer(fetcher.generation, asks, after, frozenset(asks), history), link.read(0)])
    assert timeline.replicas["a"].reach(first.id) is Reach.ABSENT


def test_a_horizon_beyond_a_channels_first_event_takes_nothing_from_it() -> None:
    entries = [Entry("ab", id, prev, b"data: x\n\n") for id, prev in ((100, -7), (150, 100), (250, 150))]
    found = past(0, entries, 250, horizon=200)
    assert (found.start, [entry.id for entry in found.entries]) == (7, [100, 150, 250])


def test_a_hole_in_the_middle_of_a_list_is_found() -> None:
    entries = [Entry("ab", id, prev, b"data: x\n\n") for id, prev in ((100, 90), (250, 150))]
    found = past(95, entries, 250, horizon=0)
    assert (found.start, [entry.id for entry in found.entries]) == (150, [250])


class Evil(str):
    """A string that shows another face when it is formatted."""

    def __format__(self, spec: str) -> str:
        return "x\ndata: injected"

    __str__ = __repr__ = lambda self: "x\ndata: injected"


class Name(str, Enum):
    NEWS = "news"


def test_subclasses_of_str_go_out_as_their_characters() -> None:
    assert encode_body(make_event(Evil("text"), Evil("kind"))) == b"event: kind\ndata: text\n\n"
    assert encode_body(make_event(Name.NEWS, Name.NEWS)) == b"event: news\ndata: news\n\n"
    for check in (checked_channel, checked_once):
        assert type(check(Name.NEWS)) is str
        assert f"{check(Evil('news'))}" == "news"


def test_the_newest_events_are_counted_without_expired_ones() -> None:
    replica = Replica(100)
    entries = [Entry("ab", n, n - 1, b"", expires=50 if n > 3 else 0) for n in range(1, 6)]
    replica.adopt(past(0, entries, 5, 0), asked=0, last=60, known=0)
    resume = Resume(("a",), Start(newest=2))
    moment = Moment("ab", 60, 60)
    resume.begin({"a": replica}, moment)
    assert [entry.id for entry in resume.take({"a": replica}, moment)] == [2, 3]
