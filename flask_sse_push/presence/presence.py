"""Who is in a channel: users, however many streams each has, counted over all workers.

A user is in a channel from the first stream on until GRACE seconds after the last one, so that a page that is
loaded again makes no noise. The counts are the ledger's, so those of a killed worker go with its lease.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import NamedTuple

from ..brokers.base import Broker
from ..brokers.counts import CountChange, CountKey
from ..errors import BrokerUnavailable
from ..hub.listener import StreamListener
from ..hub.stream import Stream
from ..protocol.entry import Publication
from ..protocol.event import Event
from .worker_counts import WorkerCounts

logger = logging.getLogger(__name__)

#: The type of the events that tell who came and went.
TYPE = "sse.presence"
#: Begins the ledger's tables of users; the channel follows.
TABLE = "in:"
#: Users named in one event.
MAX_NAMED = 100
#: Comings and goings that wait for the broker; the oldest go first.
MAX_UNTOLD = 10_000


class Move(NamedTuple):
    """A user came into a channel, or went."""

    channel: str
    user_id: str
    came: bool


def table(channel: str) -> str:
    """The ledger's table of the channel's users."""
    return TABLE + channel


class Presence(StreamListener):
    """Counts this worker's users in the channels that want it, and tells who came and went.

    :param patterns: of the channels (fnmatch).
    :param grace: seconds that a user stays after the last stream has ended.
    """

    def __init__(
        self, worker_counts: WorkerCounts, broker: Broker, patterns: Sequence[str], grace: float
    ) -> None:
        self._worker_counts = worker_counts
        self._broker = broker
        self._grace = grace
        self._lock = threading.Lock()
        self._counted: dict[str, set[str]] = {}  # channels by connection
        self._untold: deque[Move] = deque(maxlen=MAX_UNTOLD)
        self.wants = lru_cache(4096)(lambda name: any(fnmatchcase(name, pattern) for pattern in patterns))
        worker_counts.listen(self._heard)

    def opened(self, stream: Stream) -> None:
        if stream.user_id is not None:
            with self._lock:
                self._counted[stream.connection] = set()
            self.changed(stream, stream.channels, ())

    def changed(self, stream: Stream, joined: tuple[str, ...], left: tuple[str, ...]) -> None:
        with self._lock:
            counted = self._counted.get(stream.connection)
            if counted is None:  # nobody's, or it has ended while this was on its way
                return
            came = {name for name in joined if self.wants(name)} - counted
            gone = counted & set(left)
            counted |= came
            counted -= gone
        if came:
            self._worker_counts.add({_key(name, stream): 1 for name in came})
        self._drop(stream, gone)

    def closed(self, stream: Stream) -> None:
        with self._lock:
            gone = self._counted.pop(stream.connection, ())
        self._drop(stream, gone)

    def _drop(self, stream: Stream, channels: Iterable[str]) -> None:
        for name in channels:
            self._worker_counts.drop_later(_key(name, stream), self._grace)

    # -- telling: by the registry's thread ----------------------------------------------------------------

    def _heard(self, changes: Sequence[CountChange]) -> None:
        for key, before, after in changes:
            if key.table.startswith(TABLE) and (before == 0) != (after == 0):
                self._untold.append(Move(key.table[len(TABLE) :], key.name, came=after > 0))
        if self._untold:
            try:
                self._report()
            except BrokerUnavailable as error:
                logger.warning("who came and went is told later: %s", error)

    def _report(self) -> None:
        by_channel: defaultdict[str, list[Move]] = defaultdict(list)
        for move in self._untold:
            by_channel[move.channel].append(move)
        publications = []
        for channel, moves in by_channel.items():
            count = self._broker.counts.size(table(channel))
            for at in range(0, len(moves), MAX_NAMED):
                publications.append(_publication(channel, moves[at : at + MAX_NAMED], count))
        for publication in publications:
            self._broker.publish([publication])
        outdated = self._outdated(self._untold)
        self._untold.clear()
        self._untold.extend(outdated)
        if outdated:
            self._worker_counts.wake()

    def _outdated(self, moves: Iterable[Move]) -> list[Move]:
        """What has to be told after `moves`: another worker changed it since, and may have told it
        before."""
        newest = {_key_of(move): move for move in moves}
        totals = self._broker.counts.totals(list(newest))
        return [
            move._replace(came=total > 0)
            for move, total in zip(newest.values(), totals, strict=True)
            if move.came != (total > 0)
        ]


def _key(channel: str, stream: Stream) -> CountKey:
    return CountKey(table(channel), str(stream.user_id))


def _key_of(move: Move) -> CountKey:
    return CountKey(table(move.channel), move.user_id)


def _publication(channel: str, moves: Sequence[Move], count: int) -> Publication:
    data = {
        "channel": channel,
        "join": [move.user_id for move in moves if move.came],
        "leave": [move.user_id for move in moves if not move.came],
        "count": count,
    }
    return Publication(Event(json.dumps(data), TYPE).encode(), (channel,))
