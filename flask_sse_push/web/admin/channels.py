"""The channels, as the admin page shows them: how they are kept, who listens, and which are the newest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...brokers.base import NO_INBOX, Broker
from ...presence import presence
from ...protocol.channel import BROADCAST, shard_of
from ...protocol.entry import Entry
from .visit import Visit, shown

if TYPE_CHECKING:
    from ...config import Settings
    from ..services import Services

#: At most how many of the newest channels are searched for a part of a name.
SEARCHED = 2000
#: At most how many users of a channel are named.
USERS = 100
#: At most how many bytes of entries are read to count them.
ROOM = 2_000_000

#: What `kept` returns for a channel of which the broker knows no event.
NOTHING: Mapping[str, Any] = {
    **dict.fromkeys(("events", "bytes"), 0),
    **dict.fromkeys(("oldest", "newest", "gone"), None),
    "complete": True,
}


def listed(visit: Visit) -> dict[str, Any]:
    """Returns the channels with the newest events, the newest first."""
    part, limit = visit.text("contains") or "", visit.limit()
    heads = visit.services.publishing.broker.heads(SEARCHED)
    names = [name for name in heads if part in name and name[:1] not in ("", "!", BROADCAST)]
    return {"channels": [{"name": shown(name), "newest": heads[name] / 1e6} for name in names[:limit]]}


def one(visit: Visit) -> dict[str, Any]:
    """Returns a channel's policy, its listeners, its present users and its kept events. Blocks for calls."""
    name, services = visit.channel(), visit.services
    return {
        "name": name,
        "policy": policy(services.settings, name),
        "listeners": services.streaming.worker_queries.count(name),
        "presence": _presence(services, name),
        "kept": kept(services.publishing.broker, name),
    }


def policy(settings: Settings, name: str) -> dict[str, Any]:
    """Returns the policy of a channel, and the pattern that the policy comes from."""
    found = settings.policies[name]
    shown_ones = ("public", "presence", "history", "ttl", "batch_ms")
    facts = {key: getattr(found, key) for key in shown_ones}
    return {**facts, "bytes": found.bytes or None, "pattern": found.pattern or None}


def _presence(services: Services, name: str) -> dict[str, Any] | None:
    if not services.settings.policies[name].presence:
        return None
    counts, table = services.publishing.broker.counts, presence.table(name)
    users = sorted(counts.names(table, USERS))
    return {"count": counts.size(table), "users": [shown(user) for user in users]}


def shard_with(broker: Broker, channel: str) -> Broker:
    """Returns the shard that a channel lies on."""
    return broker.shards[shard_of(channel, len(broker.shards))]


def size_of(entry: Entry) -> int:
    """Returns how many bytes an event counts in a policy: its lines `event:` and `data:`."""
    return len(entry.frame) - entry.frame.index(b"\n") - 1


def kept(broker: Broker, name: str) -> dict[str, Any]:
    """Returns how many events the broker keeps for a channel, their bytes, and the oldest and newest time.

    `complete` is False if there are too many events to read. The numbers are then about the newest events.
    `gone` is the time of the newest event that is not kept any more; None if no such event is known. Blocks
    for one call.
    """
    history = shard_with(broker, name).history({name: 0}, NO_INBOX, ROOM)
    found = history.channels[name]
    entries = [entry for entry in found.entries if not entry.is_expired(history.clock)]
    expired = [entry.id for entry in found.entries if entry.is_expired(history.clock)]
    gone = max([*expired, 0 if found.is_cut else min(found.start, found.head)])
    return {
        "events": len(entries),
        "bytes": sum(map(size_of, entries)),
        "complete": not found.is_cut,
        "oldest": entries[0].id / 1e6 if entries else None,
        "newest": entries[-1].id / 1e6 if entries else None,
        "gone": gone / 1e6 if gone else None,
    }
