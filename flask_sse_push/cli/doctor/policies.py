"""Checks whether other processes keep the same histories as this app."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...brokers.base import Broker
from ...brokers.redis.broker import RedisBroker
from ...brokers.redis.declared import ADVICE, NOTED, DeclaredPolicies
from ...brokers.redis.surroundings import Kept
from ...config import Settings
from .finding import Finding, ok, warning

#: At most how many seconds the history of a channel may differ from its policy.
KEPT_DIFFERS = 5.0
NAME = "history of publishers"
_WHY = (
    "each publisher sets anew how much of a channel's history is kept, so clients that were away lose events "
    "that this app wants to keep"
)

#: How long the doctor warns of a process that publishes no more, or has the same policies now.
_UNTIL = f"this warning ends {NOTED / 60:.0f} minutes after such an event"


def examine_policies(shards: Sequence[Broker], kept: Sequence[Kept], settings: Settings) -> Iterator[Finding]:
    """Yields a finding about the policies of other processes. Blocks for one call for each shard.

    :param kept: how many events of each of the newest channels are kept, and for how long.
    :raises BrokerUnavailable: if the server does not answer.
    """
    own, states = DeclaredPolicies(settings.policies), _states(shards)
    differences = next((text for digest, rules, _ in states if (text := own.differences(digest, rules))), "")
    process = next((text for digest, _, note in states if (text := own.other_process(digest, note))), "")
    other = next((text for each in kept if (text := _difference(each, settings))), "")
    if differences:
        yield warning(
            NAME, f"other processes keep other histories than this app: {differences}", _WHY, ADVICE
        )
    elif process:
        yield warning(NAME, process, _WHY, f"{ADVICE}; {_UNTIL}")
    elif other:
        yield warning(
            NAME, other, _WHY, f"{ADVICE}; if they are the same now, publish one more event to the channel"
        )
    elif states:
        yield ok(
            NAME, f"the broker has the channel policies of this app ({settings.policies.history_digest})"
        )


def _states(shards: Sequence[Broker]) -> list[tuple[bytes, bytes | None, bytes | None]]:
    """Returns the fields `policies`, `rules` and `other` of each shard's state that has policies."""
    fields = ("policies", "rules", "other")
    servers = [shard for shard in shards if isinstance(shard, RedisBroker)]
    found = [shard.run("HMGET", shard.base + "state", *fields) for shard in servers]
    return [(digest, rules, note) for digest, rules, note in found if digest]


def _difference(kept: Kept, settings: Settings) -> str:
    """Returns a sentence about a history that is kept otherwise than the policy says; "" if it is not."""
    policy, theirs = settings.policies[kept.channel], ""
    if abs(kept.seconds - policy.ttl) > max(KEPT_DIFFERS, policy.ttl / 100):
        theirs = f"its events for {kept.seconds:.0f} seconds, and the settings of this app say {policy.ttl:g}"
    elif kept.events > policy.history:
        theirs = f"{kept.events} of its events, and the settings of this app say {policy.history}"
    return theirs and f"the publishers of the channel {kept.channel} keep {theirs}"
