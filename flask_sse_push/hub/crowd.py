"""Delivers events of one channel to very many groups that get the same bytes.

If each user listens to a channel of their own and to a common channel, each stream is a group of its own. An
event on the common channel then makes the same chunk for all these groups. Here the chunk is made once, and
only a few numbers of each group change.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ..protocol.entry import Entry
from .group import Delivery, Group
from .stream import Recipients, Stream


def deliver_to_crowd(
    groups: Sequence[Group], entries: Sequence[Entry], apart: Collection[Group], now: float
) -> tuple[list[Delivery], list[Group]]:
    """Makes the deliveries of `entries` for all groups that get the same bytes of them.

    Returns the deliveries, and the groups that did not take part, which must collect the entries themselves.

    :param entries: at least one entry, all from one channel that all groups listen to, in order.
    :param apart: groups that must not take part.
    :param now: monotonic seconds.
    """
    frames = b"".join([entry.frame for entry in entries])
    before, last, count = entries[0].id, entries[-1].id, len(entries)
    parts: dict[type[Stream], tuple[Recipients, bytes]] = {}
    others: list[Group] = []
    kind: type[Stream] | None = None
    for group in groups:  # this loop runs for each stream and event, so it makes as few calls as it can
        if not group.plain or group.last >= before or (apart and group in apart):
            others.append(group)
            continue
        if group.kind is not kind:
            kind = group.kind
            recipients, chunk = parts.setdefault(kind, (kind.recipients(), kind.framed(frames)))
            size, extend = len(chunk), recipients.extend
        group.last, group.written_at = last, now
        group.events += count
        group.bytes += size
        extend(group.recipients)
    limited = entries if any(entry.exclude for entry in entries) else ()
    return [
        Delivery(kind, recipients.share(), chunk, limited, b"", entries)
        for kind, (recipients, chunk) in parts.items()
    ], others
