"""The inbox loses nothing, keeps the order, and is bounded."""

from __future__ import annotations

import threading
import time

import pytest

from flask_sse_push.history.shards import ShardItem
from flask_sse_push.hub import inbox as inboxes
from flask_sse_push.hub.inbox import Inbox

#: Seconds that no wait takes here.
LONG = 30.0


def taken(inbox: Inbox, timeout: float = LONG, coalesce: float = 0.0) -> list[ShardItem]:
    inbox.wait(timeout, coalesce)
    return inbox.take()


def test_all_items_are_taken_at_once_and_in_order() -> None:
    inbox = Inbox()
    for number in range(3):
        inbox.put((number, None))
    assert len(inbox) == 3
    assert taken(inbox) == [(0, None), (1, None), (2, None)]
    assert (len(inbox), taken(inbox, 0)) == (0, [])


def test_take_waits_for_the_first_item() -> None:
    inbox = Inbox()
    thread = threading.Timer(0.05, inbox.put, [(0, None)])
    thread.start()
    assert taken(inbox) == [(0, None)]
    thread.join()


def test_take_gives_up_after_its_timeout() -> None:
    began = time.monotonic()
    assert taken(Inbox(), 0.05) == []
    assert 0.04 < time.monotonic() - began < LONG / 2


def test_a_wake_lets_take_return_without_an_item() -> None:
    inbox = Inbox()
    inbox.wake()
    began = time.monotonic()
    assert taken(inbox) == []
    assert time.monotonic() - began < LONG / 2


def test_items_that_come_within_the_pause_are_taken_with_the_first_one() -> None:
    inbox = Inbox()
    inbox.put((0, None))
    thread = threading.Timer(0.05, inbox.put, [(1, None)])
    thread.start()
    assert taken(inbox, LONG, coalesce=1.0) == [(0, None), (1, None)]
    thread.join()


def test_a_full_inbox_makes_its_readers_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inboxes, "MAX_INBOX", 2)
    inbox = Inbox()

    def read_link() -> None:
        for number in range(5):
            inbox.put((number, None))

    thread = threading.Thread(target=read_link)
    thread.start()
    found: list[ShardItem] = []
    while len(found) < 5:
        time.sleep(0.01)
        assert len(inbox) <= 2
        found += taken(inbox)
    thread.join(LONG)
    assert [number for number, _ in found] == [0, 1, 2, 3, 4]


def test_no_item_of_several_threads_is_lost_or_overtaken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inboxes, "MAX_INBOX", 3)
    inbox, count, threads = Inbox(), 2000, 4

    def read_link(thread: int) -> None:
        for number in range(count):
            inbox.put((thread, number))  # type: ignore[arg-type]

    readers = [threading.Thread(target=read_link, args=[thread]) for thread in range(threads)]
    for reader in readers:
        reader.start()
    found: list[object] = []
    while len(found) < count * threads:
        items = taken(inbox)
        assert items, "items are left, but `take` returned none"
        found += items
    for reader in readers:
        reader.join(LONG)
    for thread in range(threads):
        mine = [item for item in found if isinstance(item, tuple) and item[0] == thread]
        assert mine == [(thread, number) for number in range(count)]
