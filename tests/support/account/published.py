"""What was published to one broker, or to one shard, in the order in which streams must get it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable
from math import inf
from typing import NamedTuple

from flask_sse_push.brokers.memory import MemoryBroker
from flask_sse_push.protocol.cursor import Cursor, parse

#: A position: the number of its epoch, and the id.
Place = tuple[int, int]
#: The place of a stream that has been given none yet.
NOWHERE: Place = (0, 0)


class Event(NamedTuple):
    """An event that was published."""

    serial: int
    channels: frozenset[str]
    place: Place = NOWHERE
    exclude: frozenset[str] = frozenset()  # connections and users who must not get it
    fleeting: bool = False  # it has a time to live: a stream that comes later need not get it
    shared: bool = False  # published on several channels, of which some may lie on other shards


class Fork(NamedTuple):
    """Where a failover parted two epochs: the older epoch's events after the id `last` are lost."""

    parent: int  # number of the epoch
    last: int


class Account:
    """All events in the order of their positions; the state of the broker is not known."""

    def __init__(self, epochs: Iterable[str]) -> None:
        self.events: list[Event] = []
        self._places: list[Place] = []
        self._on: defaultdict[str, list[int]] = defaultdict(list)  # indexes of a channel's events
        self.epochs = {epoch: number for number, epoch in enumerate(epochs)}
        self.forks: dict[int, Fork] = {}  # by the number of the newer epoch
        #: Serials of events that the broker stored in more than one epoch.
        self.stored_again: set[int] = set()

    def note(self, cursor: Cursor, event: Event) -> None:
        """Enters an event that got this position. Positions must increase."""
        place = (self.epochs[cursor.epoch], cursor.id)
        assert not self._places or place > self._places[-1], f"{cursor} does not increase"
        for name in event.channels:
            self._on[name].append(len(self.events))
        self.events.append(event._replace(place=place))
        self._places.append(place)

    def place(self, text: str) -> Place:
        """The place that a cursor stands for. A position that two epochs share is the older one's."""
        cursor = parse(text)
        assert cursor is not None, f"{text!r} is no cursor"
        assert cursor.epoch in self.epochs, f"{text!r} has an epoch that never was"
        number, id = self.epochs[cursor.epoch], cursor.id
        while number in self.forks and id <= self.forks[number].last:
            number = self.forks[number].parent
        return number, id

    def index(self, place: Place) -> int:
        """How many events stand at or before `place`."""
        return bisect_right(self._places, place)

    def on(self, channels: Iterable[str], first: int, until: int) -> list[int]:
        """Indexes from `first` to before `until` of the events on any of these channels."""
        found: set[int] = set()
        for name in channels:
            all_of_them = self._on.get(name, [])
            found.update(all_of_them[bisect_left(all_of_them, first) : bisect_left(all_of_them, until)])
        return sorted(found)

    def undone(self, at: int) -> bool:
        """Whether a failover lost the event at this index. Streams that did not see it need not get it."""
        number, id = self.events[at].place
        return any(number == fork.parent and id > fork.last for fork in self.forks.values())

    def parted(self, old: Place, new: Place) -> bool:
        """Whether a failover undid what a stream at `old` may have seen before it came to `new`."""
        return False

    def kept_since(self, names: Iterable[str], at: int) -> dict[str, int | None]:
        """For each channel the index from which on the broker still has all events; not before `at`.

        None: not known. Then the channel's next event that the stream gets is the first one it must get.
        """
        return dict.fromkeys(names)

    def after_reset(self) -> int | None:
        """The index from which on a channel's events must come after a reset now; None: not known."""
        return None


class BrokerAccount(Account):
    """The account of a model test, which can look into the broker."""

    def __init__(self, broker: MemoryBroker) -> None:
        super().__init__([broker._epoch])
        self._broker = broker
        self._trimmed: dict[str, int] = {}
        self.tampered: set[str] = set()  # channels whose lists were cut from outside

    def new_epoch(self, epoch: str) -> None:
        """The broker has lost everything."""
        self.epochs[epoch] = len(self.epochs)

    def fork(self, epoch: str, parent: str, last: int) -> None:
        """The broker goes on as `epoch` from a copy that held `parent` up to the id `last`."""
        # The copy may bring back events that workers know to be trimmed, or to have expired with their list.
        for name in self._on:
            self._trimmed[name] = max(self._trimmed.get(name, 0), self._kept(name))
        self.new_epoch(epoch)
        self.forks[self.epochs[epoch]] = Fork(self.epochs[parent], last)

    def place(self, text: str) -> Place:
        cursor = parse(text)
        if cursor is not None and cursor.epoch == self._broker._epoch:
            assert cursor.id <= self._broker._last, f"{text!r} is a position of the future"
        return super().place(text)

    def parted(self, old: Place, new: Place) -> bool:
        return old != NOWHERE and old[1] > self._shared(old[0], new[0])

    def kept_since(self, names: Iterable[str], at: int) -> dict[str, int | None]:
        end = len(self.events)
        first = {name: max(at, self._kept(name), self._trimmed.get(name, 0)) for name in names}
        return {name: end if name in self.tampered else first[name] for name in names}

    def after_reset(self) -> int | None:
        return len(self.events)

    def proves(self, name: str, place: Place) -> bool:
        """Whether the broker can show that nothing of the channel after `place` is gone."""
        if place[1] > self._shared(place[0], len(self.epochs) - 1):
            return False
        limit = self._broker._horizon
        if kept := self._broker._lists.get(name):
            limit = min(limit, int(kept[0].split(b" ")[1]) - 1)
        index = self.index(place)
        if index and self.events[index - 1].shared:
            index -= 1  # the worker may know the event from another channel, and not from this one
        return place[1] >= limit and self._kept(name) <= index

    def _kept(self, name: str) -> int:
        """The index from which on the broker has everything of the channel."""
        entries = [stored.split(b" ") for stored in self._broker._lists.get(name, ())]
        kept = {(self.epochs[epoch.decode()], int(id)) for epoch, id, *_ in entries}
        for at in reversed(self._on.get(name, [])):
            if self._places[at] not in kept and not self.undone(at):
                return at + 1
        return 0

    def _shared(self, old: int, new: int) -> float:
        """The id up to which the epoch `new` has the events of the epoch `old`; -1: it has none of them."""
        last = inf
        while new > old and new in self.forks:
            new, last = self.forks[new]
        return last if new == old else -1
