"""A thread of the history that something ends leaves its work to the next thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from flask_sse_push.brokers.base import History, Link, LinkMessage
from flask_sse_push.brokers.memory import MemoryBroker
from flask_sse_push.history.fetcher import HistoryFetcher, HistoryReply
from flask_sse_push.history.link import LinkReader
from flask_sse_push.history.read_queue import HistoryRequest
from tests.support.policies import keeping


class Greenlike(BaseException):
    """Stands for `gevent.Timeout` and `GreenletExit`, which are no Exceptions."""


class Wire(Link):
    """A link whose first read is interrupted, and whose second finds it closed."""

    def __init__(self, reader: LinkReader) -> None:
        self.reader = reader
        self.closed = False

    def subscribe(self, channels: Sequence[str]) -> None:
        pass

    def unsubscribe(self, channels: Sequence[str]) -> None:
        pass

    def read(self, timeout: float) -> list[LinkMessage]:
        raise Greenlike

    def close(self) -> None:
        self.closed = True


def test_the_next_reader_says_that_the_link_of_the_last_one_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    broker = MemoryBroker(keeping(10, 60.0))
    reader = LinkReader(broker, "inbox", told.append, 10.0)
    wires = [Wire(reader), Wire(reader)]
    links = iter(wires)
    monkeypatch.setattr(broker, "link", lambda inbox: next(links))
    with pytest.raises(Greenlike):
        reader.run()
    assert (told, wires[0].closed) == ([], False)
    with pytest.raises(Greenlike):
        reader.run()
    assert (told, wires[0].closed) == ([(0, None)], True)
    reader.close()
    reader.run()
    assert (told, wires[1].closed) == ([(0, None), (0, None)], True)


def test_a_reader_that_is_interrupted_while_it_tells_says_it_again() -> None:
    told: list[Any] = []

    def put(item: Any) -> None:
        told.append(item)
        if len(told) == 1:
            raise Greenlike

    reader = LinkReader(MemoryBroker(keeping(10, 60.0)), "inbox", put, 10.0)
    reader._link = Wire(reader)
    reader.close()
    with pytest.raises(Greenlike):
        reader.run()
    reader.run()
    assert told == [(0, None), (0, None)]


def test_a_link_is_renewed_on_demand() -> None:
    told: list[Any] = []
    reader = LinkReader(MemoryBroker(keeping(10, 60.0)), "inbox", told.append, 10.0)
    link = reader._connect()
    reader.renew()
    with pytest.raises(Exception, match="asked for a new link"):
        reader._read(link)
    reader._connect()
    assert not reader._renews


@pytest.mark.parametrize("where", ["call", "put"])
def test_the_next_fetcher_finds_the_requests_of_the_last_one(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = MemoryBroker(keeping(10, 60.0))
    replies: list[HistoryReply] = []
    expected: list[bool] = []
    interrupts = [True]

    def put(item: tuple[int, HistoryReply]) -> None:
        interrupt("put")
        replies.append(item[1])

    def interrupt(here: str) -> None:
        if here == where and interrupts:
            interrupts.clear()
            raise Greenlike

    def history(*arguments: Any) -> History:
        interrupt("call")
        return MemoryBroker.history(broker, *arguments)

    monkeypatch.setattr(broker, "history", history)
    fetcher = HistoryFetcher(broker, "inbox", put, 10.0, expected.append)
    request = HistoryRequest(0, is_join=True)
    fetcher.submit("a", request)
    with pytest.raises(Greenlike):
        fetcher._fetch()
    assert expected == [True, False]
    assert len(fetcher.queue) == 1
    fetcher._fetch()
    assert [reply.requests for reply in replies] == [{"a": [request]}]
    assert len(fetcher.queue) == 0
