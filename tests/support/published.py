"""An announcer on a memory broker, and what it has published."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flask_sse_push.brokers.announcer import MessageAnnouncer
from flask_sse_push.brokers.memory import MemoryBroker
from flask_sse_push.config import Settings
from flask_sse_push.errors import BrokerUnavailable
from flask_sse_push.protocol.cursor import Cursor
from flask_sse_push.protocol.data import flask_dumps
from flask_sse_push.protocol.entry import Publication
from tests.support.policies import keeping


class ListeningBroker(MemoryBroker):
    """A memory broker that notes each call of `publish`, and can be away.

    `away` is the number of calls that fail. With `loses_reply`, such a call stores its events all the same.
    """

    def __init__(self) -> None:
        super().__init__(keeping(100_000, 3600))
        self.calls: list[list[str]] = []
        self.away = 0
        self.loses_reply = False

    def publish(self, publications: Sequence[Publication], once: str | None = None) -> list[Cursor]:
        self.calls.append([data_of(each.body) for each in publications])
        if self.away:
            self.away -= 1
            if self.loses_reply:
                super().publish(publications, once)
            raise BrokerUnavailable("Redis: the test has taken the server away")
        return super().publish(publications, once)


class Published:
    """An announcer and its broker."""

    def __init__(self, **settings: Any) -> None:
        self.broker = ListeningBroker()
        self.announcer = MessageAnnouncer(self.broker, Settings(**settings), flask_dumps)

    def data(self, channel: str = "sse") -> list[str]:
        """Returns the data of all events of a channel, in order, as text without the mark of JSON."""
        history = self.broker.history({channel: 0}, "nobody").channels[channel]
        return [data_of(entry.frame.partition(b"\n")[2]) for entry in history.entries]


def data_of(body: bytes) -> str:
    """Returns the data of an event with one line of data."""
    return next(line for line in body.decode().split("\n") if line.startswith("data: "))[6:].removesuffix(
        "\t"
    )
