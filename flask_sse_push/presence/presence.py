"""Presence: which users are in a channel, on any worker and with any number of streams.

A user enters a channel with the user's first stream, and leaves it `grace` seconds after the last stream has
ended. So reloading a page causes no presence event. Each worker counts its users in the broker. The counts of
a killed worker expire after some seconds.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ..brokers.base import Broker
from ..brokers.counts import CountChange, CountKey
from ..config import ChannelPolicies
from ..errors import BrokerUnavailable
from ..hub.listener import StreamListener
from ..hub.stream import Stream
from ..protocol.entry import Publication
from ..protocol.event import Event
from .worker_counts import WorkerCounts

logger = logging.getLogger(__name__)

#: The type of the events that say which users joined a channel and which users left.
TYPE = "sse.presence"
#: The name of the table that counts a channel's users is this prefix, followed by the channel's name.
TABLE = "in:"
#: At most how many users one event names.
MAX_NAMED = 100
#: At most how many joins and leaves wait while the broker does not answer. If more come, the oldest are
#: dropped.
MAX_UNPUBLISHED = 10_000


class UserChange(NamedTuple):
    """One user joined or left one channel."""

    channel: str
    user_id: str
    joined: bool


def table(channel: str) -> str:
    """Returns the name of the table in the broker that counts a channel's users."""
    return TABLE + channel


class Presence(StreamListener):
    """Counts this worker's users in the chosen channels, and publishes events about joins and leaves.

    :param policies: say in which channels users are counted.
    :param grace: how many seconds a user stays in a channel after the user's last stream has ended.
    """

    def __init__(
        self, worker_counts: WorkerCounts, broker: Broker, policies: ChannelPolicies, grace: float
    ) -> None:
        self._worker_counts = worker_counts
        self._broker = broker
        self._grace = grace
        self._lock = threading.Lock()
        self._counted: dict[str, set[str]] = {}  # the counted channels of each connection
        self._unpublished: deque[UserChange] = deque(maxlen=MAX_UNPUBLISHED)
        self._policies = policies
        worker_counts.listen(self._note_changes)

    def opened(self, stream: Stream) -> None:
        if stream.user_id is not None:
            with self._lock:
                self._counted[stream.connection] = set()
            self.changed(stream, stream.channels, ())

    def changed(self, stream: Stream, joined: tuple[str, ...], left: tuple[str, ...]) -> None:
        with self._lock:
            counted = self._counted.get(stream.connection)
            if counted is None:  # the stream has no user, or has already ended
                return
            added = {name for name in joined if self._policies[name].presence} - counted
            dropped = counted & set(left)
            counted |= added
            counted -= dropped
        if added:
            self._worker_counts.add({_key(name, stream): 1 for name in added})
        self._drop(stream, dropped)

    def closed(self, stream: Stream) -> None:
        with self._lock:
            dropped = self._counted.pop(stream.connection, ())
        self._drop(stream, dropped)

    def _drop(self, stream: Stream, channels: Iterable[str]) -> None:
        for name in channels:
            self._worker_counts.drop_later(_key(name, stream), self._grace)

    # -- publishing, called by the thread of the worker counts --------------------------------------------

    def _note_changes(self, changes: Sequence[CountChange]) -> None:
        for key, before, after in changes:
            if key.table.startswith(TABLE) and (before == 0) != (after == 0):
                self._unpublished.append(UserChange(key.table[len(TABLE) :], key.name, joined=after > 0))
        if self._unpublished and not changes:
            try:
                self._publish()
            except BrokerUnavailable as error:
                logger.warning("cannot publish presence events now, trying again: %s", error)

    def _publish(self) -> None:
        by_channel: defaultdict[str, list[UserChange]] = defaultdict(list)
        for change in self._unpublished:
            by_channel[change.channel].append(change)
        publications = []
        for channel, changes in by_channel.items():
            count = self._broker.counts.size(table(channel))
            for at in range(0, len(changes), MAX_NAMED):
                publications.append(_publication(channel, changes[at : at + MAX_NAMED], count))
        for publication in publications:
            self._broker.publish([publication])
        corrections = self._corrections(self._unpublished)
        self._unpublished.clear()
        self._unpublished.extend(corrections)
        if corrections:
            self._worker_counts.wake()

    def _corrections(self, published: Iterable[UserChange]) -> list[UserChange]:
        """Returns the joins and leaves that must be published after `published` to correct it.

        Another worker may have changed a count in the meantime and published its event earlier. The last
        event about that user would then be wrong.
        """
        newest = {CountKey(table(change.channel), change.user_id): change for change in published}
        totals = self._broker.counts.totals(list(newest))
        return [
            change._replace(joined=total > 0)
            for change, total in zip(newest.values(), totals, strict=True)
            if change.joined != (total > 0)
        ]


def _key(channel: str, stream: Stream) -> CountKey:
    return CountKey(table(channel), str(stream.user_id))


def _publication(channel: str, changes: Sequence[UserChange], count: int) -> Publication:
    data = {
        "channel": channel,
        "join": [change.user_id for change in changes if change.joined],
        "leave": [change.user_id for change in changes if not change.joined],
        "count": count,
    }
    return Publication(Event(json.dumps(data), TYPE).encode(), (channel,))
