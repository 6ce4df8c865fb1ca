"""Tries the pub/sub of Redis for the doctor. Writes nothing to Redis."""

from __future__ import annotations

from ..foreign import ForeignData
from .arrivals import connect_link
from .broker import RedisBroker
from .client import translated_errors
from .link import RedisLink
from .proof import Proofs

#: An echo as the scripts send it: an epoch and a position.
ECHO = "doctor 0"


def has_state(broker: RedisBroker) -> bool:
    """Whether a shard has a state. A probe of a shard without a state would write one. Blocks for one call.

    :raises BrokerUnavailable: if the server does not answer.
    """
    return bool(broker.run("HLEN", broker.base + "state"))


def open_link(broker: RedisBroker, inbox: str) -> RedisLink:
    """Returns a link that gets echoes only. Unlike `RedisBroker.link`, writes no state. Blocks.

    :raises BrokerUnavailable: if the server does not answer.
    """
    with translated_errors():
        connection = connect_link(broker.pool)
    live, own = f"{broker.base}live:", f"{broker.base}inbox:{inbox}"
    link = RedisLink(*connection, live, own, ForeignData(), Proofs(), broker.pubsub)
    link.open()
    return link


def send_echo(broker: RedisBroker, inbox: str) -> None:
    """Publishes an echo to the links with the inbox `inbox`, as a probe does. Blocks for one call.

    :raises BrokerUnavailable: if the server does not answer.
    """
    broker.run(broker.pubsub.publish, f"{broker.base}inbox:{inbox}", ECHO)
