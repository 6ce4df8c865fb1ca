"""What one stream must get, and whether it got it.

A stream must get every event of its channels after the position at which it began, once and in order, except
the events that an `sse.reset` of their channel stands for. No cursor may pass an event that is still to come.
No reset may come while the broker has everything; only an account that can look into the broker checks this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from typing import NamedTuple

from flask_sse_push.history.position import StartPoint
from flask_sse_push.protocol.channel import BROADCAST
from flask_sse_push.protocol.cursor import EARLIEST, LOST, parse

from .published import NOWHERE, Account, BrokerAccount, Event, Place
from .records import Changed, Ended, Got, Missed, Moved, Opened, Record, Reset, cursor_of
from .verdict import Kind, Verdict

#: Cursors that no stream was given, and the end of others.
BOGUS, FUTURE = (LOST, "nonsense"), "-zzzzzzzzz"


def is_bogus(cursor: str | None) -> bool:
    """Whether a client made this cursor up."""
    return cursor in BOGUS or (cursor or "").endswith(FUTURE)


class Request(NamedTuple):
    """A request to change a stream's channels."""

    join: frozenset[str]
    leave: frozenset[str]
    start: StartPoint
    sure: bool  # nothing has happened since that excuses a loss
    since: int  # the index from which on the stream must get the events of the new channels


class StreamAccount:
    """Reads what a stream got, and reports each fault to the verdict.

    :param name: of the stream, for the verdict.
    :param identities: the stream's connection and user, which events may exclude.
    :param is_behind: returns whether the stream's worker does not know of the last failover yet.
    """

    def __init__(
        self,
        account: Account,
        verdict: Verdict,
        *,
        name: str = "the stream",
        identities: Set[str] = frozenset(),
        is_behind: Callable[[], bool] = lambda: False,
    ) -> None:
        self._account = account
        self._verdict = verdict
        self._name = name
        self._identities = identities
        self._is_behind = is_behind
        self.cursor: str | None = None
        self.open = False
        self._at: int | None = None  # all events before this index are dealt with; None: not known
        self._place = NOWHERE
        self._got: set[int] = set()  # serials
        self._cursors: set[str] = set()  # of the events it got

    def connect(self, channels: Iterable[str], start: StartPoint) -> None:
        """The client opens a connection. Without a cursor it begins anew, else it goes on.

        :param channels: with BROADCAST, if events on that channel are in the account.
        """
        self._channels = set(channels)
        self._start = start
        self._forks = len(self._account.forks)
        self._requests: list[Request] = []
        self._missed_until = NOWHERE  # the stream got all events of the channels it joins up to here
        self._unsure: set[str] = set()  # channels whose first event after a reset is not known exactly
        self.cursor = start.cursor
        self.open = False
        if start.cursor is None:
            self._at, self._place = None, NOWHERE
        # The index from which on the stream must get a channel's events; None: from the next that comes.
        self._since: dict[str, int | None] = dict.fromkeys(self._channels, self._at or 0)

    def read(self, record: Record) -> None:
        """Compares the next record with what the stream must get."""
        if not self.open and not isinstance(record, Opened | Ended):
            self._fault("disordered", "got something before `sse.open`")
        match record:
            case Opened():
                self._opened(record)
            case Got():
                self._event(record)
            case Moved():
                self._moved(record.cursor)
            case Reset():
                self._reset(record)
            case Missed():
                self._missed(record)
            case Changed():
                self._changed(record)
            case Ended():
                pass
        self.cursor = cursor_of(record) or self.cursor

    def _fault(self, kind: Kind, problem: str) -> None:
        self._verdict.fault(kind, f"{self._name} {problem}")

    def _opened(self, record: Opened) -> None:
        cursor, asked = record.cursor, self._start.cursor
        if self.open:
            self._fault("disordered", "was opened twice")
        self.open = True
        self._verdict.resumed += record.resumed
        if record.resumed and (not asked or cursor in (LOST, EARLIEST)):
            self._fault("disordered", "claims to have resumed")
        if cursor == LOST:
            self._at = None
            if asked and not is_bogus(asked):
                self._place = self._account.place(asked)
            return
        if cursor == EARLIEST:
            self._at, self._place = 0, NOWHERE
            self._since = self._account.kept_since(self._channels, 0)
            return
        place = self._account.place(cursor)
        if asked == EARLIEST:  # there was no kept event
            self._at, self._place = self._account.index(place), place
            self._since = self._account.kept_since(self._channels, 0)
            return
        if (asked and cursor != asked) or (self._at is not None and place != self._place):
            self._fault("disordered", f"was opened at {cursor}, not where it was")
        self._at, self._place = self._account.index(place), place
        self._since = dict.fromkeys(self._channels, self._at)
        if self._start.newest:
            self._since = self._account.kept_since(self._channels, self._at)

    def _reset(self, record: Reset) -> None:
        self._verdict.resets += 1
        names = set(record.channels)
        if self._requests and names and not names & self._channels:
            self._reset_before_joining(names, record)
            return
        whole = names >= self._channels - {BROADCAST}
        # Every stream has the broadcast channel, also where the account has no events on it.
        if not names or not names <= self._channels | {BROADCAST}:
            self._fault("disordered", f"got a reset of {sorted(names)}, which are not its channels")
        if record.cursor is not None and not whole:
            self._fault("disordered", "got a cursor with a reset of some channels only")
        if isinstance(self._account, BrokerAccount):
            self._check_reset(self._account, names, record, whole)
        if record.cursor is None:
            for name in self._channels if whole else names:
                self._since[name] = self._account.after_reset()
                self._unsure.add(name)
            return
        self._place = self._account.place(record.cursor)
        self._at = self._account.index(self._place)
        self._since = dict.fromkeys(self._channels, self._at)
        self._got -= self._account.stored_again

    def _check_reset(self, account: BrokerAccount, names: set[str], record: Reset, whole: bool) -> None:
        """Whether the reset was needed, and leads to the right place."""
        if record.reason == "history":
            # A failover may bring back what had been trimmed.
            fresh = self._forks == len(account.forks) and not self._is_behind()
            for name in names - account.tampered - self._unsure if fresh else ():
                if account.proves(name, self._place):
                    self._fault("needless", f"got a reset of {name!r} without need")
        elif record.reason == "epoch":
            assert whole, "an epoch reset of some channels only"
        else:
            assert record.reason == "cursor", record.reason
            if not is_bogus(self._start.cursor):
                self._fault("needless", "got a reset although its cursor was good")
        if record.cursor is not None and self._at is not None:
            place = account.place(record.cursor)
            newer = record.reason != "epoch" or place[0] > self._place[0]
            assert newer, "an epoch reset in the same epoch"
            assert account.index(place) >= self._at, "a reset that goes back"

    def _moved(self, cursor: str) -> None:
        """The stream has a new cursor, and had no event."""
        place = self._account.place(cursor)
        until = self._account.index(place)
        if self._at is None or until < self._at or place < self._place:
            self._fault("disordered", f"went back to {cursor}")
        else:
            self._check_failover(place)
            self._pass_over(until)
        self._at, self._place = until, place

    def _event(self, record: Got) -> None:
        self._verdict.delivered += 1
        serial, cursor = record.serial, record.cursor
        place = self._account.place(cursor)
        at = self._account.index(place) - 1
        event = self._account.events[at] if at >= 0 else None
        if event is None or (event.place, event.serial) != (place, serial):
            self._fault("disordered", f"got {serial} with {cursor}, which is not its cursor")
        elif not event.channels & self._channels or event.exclude & self._identities:
            self._fault("disordered", f"got {serial}, which was not for it")
        elif serial in self._got or cursor in self._cursors:
            self._fault("doubled", f"got {serial} twice")
        else:
            self._got.add(serial)
            self._cursors.add(cursor)
            self._event_in_order(event, at)

    def _event_in_order(self, event: Event, at: int) -> None:
        if self._at is None:
            self._fault("disordered", f"got {event.serial} before it was told from where it goes on")
        elif at < self._at:
            self._fault("disordered", f"got {event.serial} too late")
        else:
            self._check_failover(event.place)
            self._pass_over(at, but=event.serial)
            for name in event.channels & self._since.keys():
                if self._since[name] is None:
                    self._since[name] = at
            self._at, self._place = at + 1, event.place

    def _check_failover(self, place: Place) -> None:
        if self._account.parted(self._place, place):
            self._fault("lost", "was not told of a failover's losses")

    def _pass_over(self, until: int, but: int | None = None) -> None:
        """Goes on to the index `until`. No event before it may be still to come, except the serial `but`."""
        assert self._at is not None
        for serial in self._to_come(self._at, until):
            if serial != but:
                self._fault("lost", f"lost {serial}: its cursor passed the event")

    def _to_come(self, first: int, until: int) -> list[int]:
        """Serials of the events from one index to before another that the stream must get."""
        on_its_channels = self._account.on(self._since, first, until)
        return [self._account.events[at].serial for at in on_its_channels if self._must_get(at)]

    def _must_get(self, at: int) -> bool:
        event = self._account.events[at]
        since = [self._since[name] for name in event.channels & self._since.keys()]
        wanted = any(first is not None and at >= first for first in since)
        return wanted and self._can_get(event) and not self._account.undone(at)

    def _can_get(self, event: Event) -> bool:
        return not event.fleeting and not event.exclude & self._identities

    # -- channels joined and left; only the model tests do this ---------------------------------------------

    def request_change(self, join: Iterable[str], leave: Iterable[str], start: StartPoint) -> None:
        """Somebody asked that the stream changes its channels. The command may not reach its worker."""
        known = start.cursor is not None and parse(start.cursor) is not None
        given = known and not is_bogus(start.cursor)
        since = self._account.index(self._account.place(start.cursor or "")) if given else 0
        self._requests.append(Request(frozenset(join), frozenset(leave), start, known, since))

    def _missed(self, record: Missed) -> None:
        names = set(record.channels)
        assert names
        assert not names & self._channels, "missed events of a channel the stream has"
        assert any(names <= request.join for request in self._requests), "nobody asked for these channels"
        until = self._account.place(record.until)
        for got in record.events:
            place = self._account.place(got.cursor)
            event = self._account.events[self._account.index(place) - 1]
            assert (event.place, event.serial) == (place, got.serial)
            assert event.channels & names
            assert not event.exclude & self._identities
            assert self._missed_until < place <= until, "missed events out of order"
            # After a failover that lost something, another channel may bring all events before it again.
            again = event.serial in self._got and self._forks == len(self._account.forks)
            if again:
                self._fault("doubled", f"got {event.serial} twice")
            self._got.add(event.serial)
        assert self._missed_until < until
        self._missed_until = until

    def _reset_before_joining(self, names: set[str], record: Reset) -> None:
        """A reset of channels that the stream joins."""
        assert record.cursor is None, "the stream's own cursor is good"
        starts = [request.start.cursor for request in self._requests if names <= request.join]
        assert starts, "nobody asked for these channels"
        if record.reason == "cursor" and not any(map(is_bogus, starts)):
            self._fault("needless", "got a reset although its cursor was good")
        self._requests = [
            request._replace(sure=request.sure and not names <= request.join) for request in self._requests
        ]

    def _changed(self, record: Changed) -> None:
        joined, left = set(record.joined), set(record.left)
        assert not joined & self._channels
        assert left <= self._channels
        assert record.cursor is not None
        self._moved(record.cursor)
        index = self._account.index(self._place)
        fitting = [each for each in self._requests if joined <= each.join and left <= each.leave]
        assert fitting, "nobody asked for this change"
        self._requests = self._requests[self._requests.index(fitting[0]) + 1 :]
        # Commands may be lost, so that the change may answer any request that fits.
        missing = [self._missing_of(request, joined, index) for request in fitting]
        if all(missing):
            self._fault("lost", f"joined {sorted(joined)} and lost {missing[0]}")
        self._channels = (self._channels | joined) - left
        assert set(record.channels) == self._channels - {BROADCAST}
        for name in left:
            self._since.pop(name, None)
            self._unsure.discard(name)
        self._since.update(dict.fromkeys(joined, index))
        self._missed_until = NOWHERE

    def _missing_of(self, request: Request, joined: set[str], until: int) -> list[int]:
        """Events of joined channels that the stream should have got as missed, and did not."""
        account = self._account
        tampered = isinstance(account, BrokerAccount) and joined & account.tampered
        if not request.sure or self._forks != len(account.forks) or tampered:
            return []
        missing = []
        for at in account.on(joined, request.since, until):
            event = account.events[at]
            wanted = not event.channels & self._channels and self._can_get(event) and not account.undone(at)
            if wanted and event.serial not in self._got:
                missing.append(event.serial)
        return missing

    # -- the end --------------------------------------------------------------------------------------------

    def ended(self, commands: Iterable[Place], *, joined: bool) -> None:
        """One of these commands ended the stream: after all events before the command, and none after it."""
        if not any(self._ends_at(place, joined) for place in commands):
            self._fault("disordered", "was ended too early or too late")

    def _ends_at(self, command: Place, joined: bool) -> bool:
        index = self._account.index(command)
        if not joined or self._at is None:
            return self._at is None or self._at <= index
        return self._at <= index and not self._to_come(self._at, index)

    def has_got(self, serial: int) -> bool:
        """Whether the event came, live or as missed."""
        return serial in self._got

    def has_all(self) -> bool:
        """Whether nothing is still to come."""
        return self._at is not None and not self._to_come(self._at, len(self._account.events))

    def finish(self) -> None:
        """The client stayed until everything should have come: every event that did not is lost."""
        if self._at is not None:
            for serial in self._to_come(self._at, len(self._account.events)):
                self._fault("lost", f"lost {serial}: the event had not come at the end")
        elif self.open or self._start.cursor is not None:
            self._fault("lost", "was never told from where it goes on")
