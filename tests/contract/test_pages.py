"""Bounded reads of the history, which every broker offers: little room, pages, newest events."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest

from flask_sse_push.brokers import base
from flask_sse_push.brokers.base import ENTRY_COST, Broker, History
from flask_sse_push.brokers.redis import broker as redis_broker
from flask_sse_push.protocol.cursor import MAX_ID
from flask_sse_push.protocol.entry import Publication

from .conftest import MakeBroker
from .test_broker import ids, publish, receive

#: Enough room for one event of `publish`, and for nothing more.
ONE = ENTRY_COST


def all_pages(broker: Broker, after: Mapping[str, int], room: int) -> list[History]:
    """Reads page after page until no event follows."""
    pages: list[History] = []
    while not pages or pages[-1].until < pages[-1].last:
        pages.append(broker.page(after, "nobody", room))
        assert len(pages) < 10_000, "the pages do not end"
        after = {name: max(position, pages[-1].until) for name, position in after.items()}
    return pages


def test_a_call_returns_the_newest_entries_that_there_is_room_for(broker: Broker) -> None:
    published = [publish(broker, "x").id for _ in range(50)]
    found = broker.history({"a": 0}, "nobody", 10 * ENTRY_COST).channels["a"]
    assert ids(found.entries) == published[-len(found.entries) :]
    assert 5 <= len(found.entries) <= 11
    assert found.is_cut
    assert found.start == published[-len(found.entries) - 1]
    assert found.head == published[-1]


def test_a_channel_for_which_there_is_no_room_is_left_out(broker: Broker) -> None:
    for name in "abc":
        for _ in range(4):
            publish(broker, "x", name)
    found = broker.history(dict.fromkeys("abc", 0), "nobody", 7 * ENTRY_COST).channels
    assert [(len(found[name].entries), found[name].is_cut) for name in "abc"] == [
        (4, False),
        (0, True),
        (0, True),
    ]
    assert found["b"].start == MAX_ID
    assert found["b"].head > 0


def test_pages_bring_every_event_of_all_channels_in_order(broker: Broker) -> None:
    chance = random.Random(5)
    published = [publish(broker, "x", *chance.sample("abc", chance.choice([1, 1, 2]))).id for _ in range(60)]
    pages = all_pages(broker, dict.fromkeys("abc", 0), 3 * ENTRY_COST)
    of_pages = [
        sorted({id for found in page.channels.values() for id in ids(found.entries)}) for page in pages
    ]
    assert [id for page in of_pages for id in page] == published
    assert max(map(len, of_pages)) <= 4
    assert all(
        found.start in (0, before)
        for before, page in zip([0, *[page.until for page in pages]], pages, strict=False)
        for found in page.channels.values()
    )


@pytest.mark.parametrize("room", [1, ONE, 10**6])
def test_a_page_has_at_least_one_event_even_if_it_is_bigger_than_the_room(broker: Broker, room: int) -> None:
    published = [publish(broker, "x" * 5000, name).id for name in "abab"]
    pages = all_pages(broker, {"a": 0, "b": 0}, room)
    assert [id for page in pages for name in "ab" for id in ids(page.channels[name].entries)][
        :1
    ] == published[:1]
    assert len(pages) <= 4


def test_a_page_begins_after_the_position_of_each_channel(broker: Broker) -> None:
    published = [publish(broker, "x", name).id for name in "abababab"]
    page = broker.page({"a": published[4], "b": published[1]}, "nobody", 10**6)
    assert ids(page.channels["a"].entries) == [published[6]]
    assert ids(page.channels["b"].entries) == [published[3], published[5], published[7]]
    assert page.until == page.last


def test_a_page_says_that_events_before_it_are_gone(make_broker: MakeBroker) -> None:
    broker = make_broker(history_size=5)
    published = [publish(broker, "x").id for _ in range(20)]
    for room in (ONE, 10**6):
        assert broker.page({"a": published[3]}, "nobody", room).channels["a"].start == published[14]


def test_a_page_without_an_event_of_a_channel_says_that_its_events_are_gone(make_broker: MakeBroker) -> None:
    broker = make_broker(history_size=5)
    first = publish(broker, "x", "b").id
    published = [publish(broker, "x", "a").id for _ in range(20)]
    page = broker.page({"a": 0, "b": 0}, "nobody", ONE)
    assert page.until < published[15]
    assert ids(page.channels["b"].entries) == [first]
    assert page.channels["a"].start == published[14]


def test_a_page_sends_an_echo(broker: Broker) -> None:
    link = broker.link("ear")
    page = broker.page({"a": 0}, "ear", ONE)
    (echo,) = receive(link, 1)
    assert echo == base.Echo(page.epoch, page.last)
    link.close()


@pytest.mark.parametrize("count", [1, 4, 100])
def test_the_newest_events_of_several_channels_are_found(broker: Broker, count: int) -> None:
    published = [publish(broker, "x", *names).id for names in ("a", "b", "ab", "c", "a", "ba", "b")]
    newest = broker.newest("ab", count)
    listening = [published[at] for at in (0, 1, 2, 4, 5, 6)]
    assert newest.ids == listening[::-1][:count]
    assert bool(newest.before) == (count < len(listening))


def test_events_that_are_no_longer_replayed_are_not_among_the_newest(broker: Broker) -> None:
    kept = publish(broker, "x").id
    broker.publish([Publication(b"data: gone\n\n", ("a",), ttl=0.0)])
    assert broker.newest("a", 5).ids == [kept]


def test_a_search_for_the_newest_events_goes_on_where_the_last_one_ended(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_broker, "LOOK_ROOM", 5 * ENTRY_COST)
    published = [publish(broker, "x", name).id for name in "abb" * 6]
    found: list[int] = []
    before = MAX_ID
    while before:
        newest = broker.newest("ab", 7, before)
        found, before = found + newest.ids, newest.before
    assert found == published[::-1]
