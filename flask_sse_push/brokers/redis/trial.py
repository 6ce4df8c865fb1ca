"""Tries pub/sub of a Redis without leaving anything there."""

from __future__ import annotations

from .broker import RedisBroker

#: An echo as the scripts send it: an epoch and a position.
ECHO = "doctor 0"


def has_state(broker: RedisBroker) -> bool:
    """Whether a shard has a state. A probe of a shard without a state would write one. Blocks for one call.

    :raises BrokerUnavailable: if the server does not answer.
    """
    return bool(broker.run("HLEN", broker.base + "state"))


def send_echo(broker: RedisBroker, inbox: str) -> None:
    """Publishes an echo to the links with the inbox `inbox`, as a probe does. Blocks for one call.

    :raises BrokerUnavailable: if the server does not answer.
    """
    broker.run(broker.pubsub.publish, f"{broker.base}inbox:{inbox}", ECHO)
