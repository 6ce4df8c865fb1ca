"""A broker of several shards: each channel lies on one shard, and each shard has an order of its own.

An event whose channels lie on several shards is stored on each of these shards. A broadcast is stored on all
shards. Counts and claims are stored on the first shard.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..protocol.channel import BROADCAST, shard_of
from ..protocol.cursor import MAX_ID, Cursor
from ..protocol.entry import Publication
from .base import UNBOUNDED, Broker, History, Link, Newest


class ShardedBroker(Broker):
    """Several brokers as one broker.

    For links and positions, use the brokers in `shards`: a link or a position belongs to one shard.
    """

    def __init__(self, shards: Sequence[Broker]) -> None:
        self._shards = tuple(shards)
        first = self._shards[0]
        self.counts, self.pool, self.base = first.counts, first.pool, first.base

    @property
    def shards(self) -> Sequence[Broker]:
        return self._shards

    def expect_to_declare(self) -> None:
        self._shards[0].expect_to_declare()  # all shards share what they know of the policies

    def publish(self, publications: Sequence[Publication], once: str | None = None) -> list[Cursor]:
        """Publishes in one atomic step for each shard, one shard after another.

        If the step of a shard fails, nothing is published on the later shards. Each shard has
        then stored its events once or not at all. With `once`, a second call stores the missing events.

        :returns: the cursor of each publication on the shard of its first channel.
        """
        cursors: dict[int, Cursor] = {}
        numbers = [self._numbers(each) for each in publications]
        for number, shard in enumerate(self._shards):
            indexes = [at for at, of_event in enumerate(numbers) if number in of_event]
            if indexes:
                parts = [self._part(publications[at], number) for at in indexes]
                for at, cursor in zip(indexes, shard.publish(parts, once), strict=True):
                    if number == numbers[at][0]:
                        cursors[at] = cursor
        return [cursors[at] for at in range(len(publications))]

    def _numbers(self, publication: Publication) -> list[int]:
        """Returns the numbers of the shards that store an event, first the shard of its first channel."""
        if BROADCAST in publication.channels:
            return list(range(len(self._shards)))
        return list(dict.fromkeys(shard_of(name, len(self._shards)) for name in publication.channels))

    def _part(self, publication: Publication, number: int) -> Publication:
        """Returns an event as one shard stores it: `here` names the event's channels on this shard."""
        count, channels = len(self._shards), publication.channels
        here = tuple(name for name in channels if name == BROADCAST or shard_of(name, count) == number)
        return publication._replace(here=here) if len(here) < len(channels) else publication

    def history(self, after: Mapping[str, int], inbox: str, room: int = UNBOUNDED) -> History:
        """Reads the history of channels that all lie on one shard. Workers read each shard directly."""
        return self._shard_of(after).history(after, inbox, room)

    def page(self, after: Mapping[str, int], inbox: str, room: int) -> History:
        return self._shard_of(after).page(after, inbox, room)

    def newest(self, channels: Sequence[str], count: int, before: int = MAX_ID) -> Newest:
        return self._shard_of(channels).newest(channels, count, before)

    def _shard_of(self, channels: Iterable[str]) -> Broker:
        """Returns the one shard on which all the channels lie."""
        (number,) = {shard_of(name, len(self._shards)) for name in channels} or {0}
        return self._shards[number]

    def heads(self, most: int) -> dict[str, int]:
        heads: dict[str, int] = {}
        for shard in self._shards:
            for name, head in shard.heads(most).items():
                heads[name] = max(head, heads.get(name, 0))
        return dict(sorted(heads.items(), key=lambda each: -each[1])[:most])

    def inspect(self) -> dict[str, Any]:
        return self._shards[0].inspect()

    def link(self, inbox: str) -> Link:
        raise NotImplementedError("each shard has links of its own")

    def claim(self, name: str, seconds: float) -> bool:
        return self._shards[0].claim(name, seconds)

    def wake(self, inbox: str) -> None:
        for shard in self._shards:
            shard.wake(inbox)

    def close(self) -> None:
        for shard in self._shards:
            shard.close()
