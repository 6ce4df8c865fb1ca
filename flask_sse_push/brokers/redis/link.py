"""A worker's link: one connection that listens to Redis's pub/sub."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from redis.exceptions import RedisError

from ...errors import BrokerUnavailable
from ..base import Echo, Link, LinkMessage, LiveEvent, Subscribed
from .client import translated_errors


class PubSub(NamedTuple):
    """The commands of one kind of pub/sub, and the first words of its messages."""

    publish: str
    subscribe: str
    unsubscribe: str
    message: bytes
    subscribed: bytes
    unsubscribed: bytes


PLAIN = PubSub("PUBLISH", "SUBSCRIBE", "UNSUBSCRIBE", b"message", b"subscribe", b"unsubscribe")
#: Its messages stay within the nodes that hold the channel's slot.
SHARDED = PubSub("SPUBLISH", "SSUBSCRIBE", "SUNSUBSCRIBE", b"smessage", b"ssubscribe", b"sunsubscribe")


class RedisLink(Link):
    """A subscribed connection.

    redis-py's own PubSub reconnects silently and loses the messages in between; a bare connection raises.

    :param live: begins the pub/sub names of channels.
    :param inbox: the pub/sub name of the link's own inbox.
    """

    def __init__(self, connection: Any, live: str, inbox: str, pubsub: PubSub = PLAIN) -> None:
        self._pubsub = pubsub
        self._connection = connection
        self._live = live
        self._inbox = inbox.encode()

    def open(self) -> None:
        """Subscribes to the link's own inbox. Raises BrokerUnavailable."""
        self._send(self._pubsub.subscribe, self._inbox)

    def subscribe(self, channels: Sequence[str]) -> None:
        self._send(self._pubsub.subscribe, *(self._live + name for name in channels))

    def unsubscribe(self, channels: Sequence[str]) -> None:
        self._send(self._pubsub.unsubscribe, *(self._live + name for name in channels))

    def _send(self, *command: str | bytes) -> None:
        with translated_errors():
            self._connection.send_command(*command, check_health=False)

    def read(self, timeout: float) -> list[LinkMessage]:
        messages: list[LinkMessage] = []
        with translated_errors():
            ready = self._connection.can_read(timeout)
            while ready:
                # The reply has begun to arrive. The connection's own timeout bounds the wait for its rest.
                message = self._message(*self._connection.read_response())
                if message is not None:
                    messages.append(message)
                ready = self._connection.can_read(0)
        return messages

    def _message(self, kind: bytes, name: bytes, content: bytes) -> LinkMessage | None:
        if kind == self._pubsub.message:
            if name != self._inbox:
                return LiveEvent(name.decode()[len(self._live) :], content)
            if content:
                epoch, last = content.split(b" ")
                return Echo(epoch.decode(), int(last))
        elif kind == self._pubsub.subscribed and name != self._inbox:
            return Subscribed(name.decode()[len(self._live) :])
        elif kind == self._pubsub.unsubscribed and name == self._inbox:
            raise BrokerUnavailable("Redis: the slot moved to another node")
        return None

    def close(self) -> None:
        with contextlib.suppress(RedisError, OSError):
            self._connection.disconnect()
