"""The account of a fault test: publishers note what they published, and clients log what they got.

Nobody can look into a real broker that was killed on the way. So an event whose `publish` raised counts as
stored when any client got it; then all clients must get it. The order of epochs follows from their positions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from flask_sse_push.history.position import StartPoint
from flask_sse_push.protocol.cursor import Cursor, parse

from .published import Account, Event
from .records import Connection, cursor_of
from .stream import StreamAccount
from .verdict import Verdict

#: A client's connections, from the first to the last.
Log = Sequence[Connection]


class Noted(NamedTuple):
    """An event that `publish` acknowledged with this cursor."""

    cursor: str
    channels: frozenset[str]
    serial: int


@dataclass
class LogAccount:
    """What the publishers of a fault test noted."""

    events: list[Noted] = field(default_factory=list)
    unknown: dict[int, frozenset[str]] = field(default_factory=dict)  # channels by serial
    sent: dict[int, float] = field(default_factory=dict)  # monotonic time by serial

    def note(self, cursor: str, channels: Iterable[str], serial: int) -> None:
        """Enters an event that `publish` acknowledged."""
        assert parse(cursor) is not None, cursor
        self.events.append(Noted(cursor, frozenset(channels), serial))

    def doubt(self, channels: Iterable[str], serial: int) -> None:
        """Enters an event whose `publish` raised: the broker stored it zero or one times."""
        self.unknown[serial] = frozenset(channels)

    def newest(self, channels: frozenset[str]) -> Cursor | None:
        """The position of the last acknowledged event of `channels`."""
        cursors = (event.cursor for event in reversed(self.events) if event.channels & channels)
        return next(map(_parsed, cursors), None)

    def verdict(self, logs: Iterable[Log], *, complete: bool = True) -> Verdict:
        """Compares what each client logged with what it had to get.

        :param complete: the clients stayed until everything should have come. What has not come is lost.
        """
        logs = list(logs)
        verdict = Verdict()
        account = self._completed(logs, verdict)
        for number, log in enumerate(logs):
            stream = StreamAccount(account, verdict, name=f"client {number}")
            for connection in log:
                stream.connect(connection.channels, StartPoint(connection.came_with))
                for record in connection.records:
                    stream.read(record)
            if complete:
                stream.finish()
        return verdict

    def _completed(self, logs: Sequence[Log], verdict: Verdict) -> Account:
        """All events in order, with the doubtful ones that somebody got."""
        channels = self.unknown | {event.serial: event.channels for event in self.events}
        stored: defaultdict[int, dict[str, None]] = defaultdict(dict)  # all cursors of a serial
        for event in self.events:
            stored[event.serial][event.cursor] = None
        for connection in (connection for log in logs for connection in log):
            for got in connection.got():
                if got.serial in channels:
                    stored[got.serial][got.cursor] = None
        account = Account(self._epochs_in_order(logs))
        for serial, cursors in stored.items():
            # A broker that loses its data between two tries of a publish forgets the first try. So an event
            # may be stored once in each epoch. Then each of them must come, with a reset in between.
            epochs = {_parsed(cursor).epoch for cursor in cursors}
            for _ in range(len(cursors) - len(epochs)):
                verdict.fault("doubled", f"event {serial} was stored twice: {', '.join(cursors)}")
        account.stored_again |= {serial for serial, cursors in stored.items() if len(cursors) > 1}
        entries = [(cursor, serial) for serial, cursors in stored.items() for cursor in cursors]
        for cursor, serial in sorted(entries, key=lambda entry: account.place(entry[0])):
            account.note(_parsed(cursor), Event(serial, channels[serial]))
        return account

    def _epochs_in_order(self, logs: Iterable[Log]) -> list[str]:
        """All epochs that anybody saw, by their first positions: positions follow the clock."""
        first: dict[str, int] = {}
        cursors = {event.cursor for event in self.events}
        for connection in (connection for log in logs for connection in log):
            cursors.update(filter(None, map(cursor_of, connection.records)))
        for found in filter(None, map(parse, cursors)):
            first[found.epoch] = min(found.id, first.get(found.epoch, found.id))
        return sorted(first, key=first.__getitem__)


def _parsed(text: str) -> Cursor:
    cursor = parse(text)
    assert cursor is not None, f"{text!r} is no cursor"
    return cursor
