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

#: What the doctor says after the publisher was mended.
_UNTIL = f"this warning goes {NOTED / 60:.0f} minutes after the last event that was published so"


def examine_policies(shards: Sequence[Broker], kept: Sequence[Kept], settings: Settings) -> Iterator[Finding]:
    """Yields a finding about the policies of other processes. Blocks for one call for each shard.

    :param kept: how many events of each of the newest channels are kept, and for how long.
    :raises BrokerUnavailable: if the server does not answer.
    """
    own = DeclaredPolicies(settings.policies)
    digest, differences, process = None, "", ""
    for shard in shards:
        if isinstance(shard, RedisBroker):
            found, rules, note = shard.run("HMGET", shard.base + "state", "policies", "rules", "other")
            digest = digest or found
            differences = differences or (own.differences(found, rules) if found else "")
            process = process or own.other_process(found, note)
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
    elif digest:
        yield ok(
            NAME, f"the broker has the channel policies of this app ({settings.policies.history_digest})"
        )


def _difference(kept: Kept, settings: Settings) -> str:
    """Returns a sentence about a history that is kept otherwise than the policy says; "" if it is not."""
    policy, theirs = settings.policies[kept.channel], ""
    if abs(kept.seconds - policy.ttl) > max(KEPT_DIFFERS, policy.ttl / 100):
        theirs = f"its events for {kept.seconds:.0f} seconds, and the settings of this app say {policy.ttl:g}"
    elif kept.events > policy.history:
        theirs = f"{kept.events} of its events, and the settings of this app say {policy.history}"
    return theirs and f"the publishers of the channel {kept.channel} keep {theirs}"
