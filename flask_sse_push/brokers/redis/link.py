"""A worker's link to Redis: one connection that is subscribed to Redis's pub/sub."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from redis.exceptions import RedisError

from ...errors import BrokerUnavailable
from .. import forks
from ..base import Echo, Link, LinkMessage, LiveEvent, Subscribed
from ..foreign import ForeignData
from .arrivals import Messages, Receiver
from .client import close_copy, translated, translated_errors
from .proof import LENGTH, Proofs

#: The content of an echo, `<epoch> <last>`. Anyone may publish to an inbox, so it must match exactly.
_ECHO = re.compile(rb"([a-z0-9]{1,16}) ([0-9]{1,16})")


class PubSub(NamedTuple):
    """One kind of pub/sub: its three commands, and the first words of the three messages that it sends."""

    publish: str
    subscribe: str
    unsubscribe: str
    message: bytes
    subscribed: bytes
    unsubscribed: bytes


PLAIN = PubSub("PUBLISH", "SUBSCRIBE", "UNSUBSCRIBE", b"message", b"subscribe", b"unsubscribe")
#: The sharded pub/sub of clusters: only the nodes that store a channel's slot get its messages.
SHARDED = PubSub("SPUBLISH", "SSUBSCRIBE", "SUNSUBSCRIBE", b"smessage", b"ssubscribe", b"sunsubscribe")


class RedisLink(Link):
    """A link to Redis over one subscribed connection.

    The link does not use the class PubSub of redis-py: PubSub reconnects without a notice and loses messages.
    A plain connection raises an error instead. redis-py only opens the connection and sends commands.

    :param receiver: reads the connection; see `connect_link`.
    :param live: prefix of the pub/sub names of channels.
    :param inbox: the pub/sub name of this link's inbox.
    :param foreign: reports messages that another program has published.
    :param proofs: checks the proofs of live messages.
    :param setting: what errors call the setting with the broker's URL; see `refusals.advice`.
    """

    def __init__(
        self,
        connection: Any,
        receiver: Receiver,
        live: str,
        inbox: str,
        foreign: ForeignData,
        proofs: Proofs,
        pubsub: PubSub = PLAIN,
        setting: str = "",
    ) -> None:
        self._setting = setting
        self._foreign = foreign
        self._proofs = proofs
        self._pubsub = pubsub
        self._connection = connection
        self._receiver = receiver
        self._messages = Messages()
        self._live = live
        self._inbox = inbox.encode()
        forks.watch(self)

    def open(self) -> None:
        """Subscribes the link to its inbox.

        :raises BrokerUnavailable: if the connection is broken.
        """
        self._send(self._pubsub.subscribe, self._inbox)

    def subscribe(self, channels: Sequence[str]) -> None:
        self._send(self._pubsub.subscribe, *(self._live + name for name in channels))

    def unsubscribe(self, channels: Sequence[str]) -> None:
        self._send(self._pubsub.unsubscribe, *(self._live + name for name in channels))

    def _send(self, *command: str | bytes) -> None:
        with translated_errors(self._setting):
            self._connection.send_command(*command, check_health=False)

    def read(self, timeout: float) -> list[LinkMessage]:
        try:
            arrived = self._messages.take(self._receiver.receive(timeout))
        except (RedisError, OSError) as error:  # no `with translated_errors`: it takes six calls
            raise translated(error, self._setting) from error
        messages = [self._message(*message) for message in arrived]
        return [message for message in messages if message is not None]

    def _message(self, kind: bytes, name: bytes, content: bytes) -> LinkMessage | None:
        if kind == self._pubsub.message:
            if name != self._inbox:
                channel = name[len(self._live) :]
                proven = self._proofs.check(channel, content)
                return LiveEvent(channel.decode(), content[LENGTH:], proven)
            echo = _ECHO.fullmatch(content)
            if echo:
                return Echo(echo[1].decode(), int(echo[2]))
            if content:
                self._foreign.report(name, "a message that is not an echo")
        elif kind == self._pubsub.subscribed and name != self._inbox:
            return Subscribed(name.decode()[len(self._live) :])
        elif kind == self._pubsub.unsubscribed and name == self._inbox:
            raise BrokerUnavailable("Redis: the slot moved to another node")
        return None

    def after_fork(self) -> None:
        """See `forks.Part.after_fork`."""
        self._receiver.close()
        close_copy(self._connection)

    def close(self) -> None:
        self._receiver.close()
        with contextlib.suppress(RedisError, OSError):
            self._connection.disconnect()
