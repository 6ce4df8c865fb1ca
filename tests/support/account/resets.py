"""Why clients of a fault test got `sse.reset`: which events were gone, and which fault had removed them."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from flask_sse_push.protocol.cursor import EARLIEST, LOST, parse

from .logs import Log, LogAccount
from .records import Reset, cursor_of

#: The client or its worker was away for so long that the broker had dropped events which the client missed.
BEHIND = "behind the kept events"
#: The test itself had written foreign data to the channel before.
FOREIGN = "foreign data"
UNEXPLAINED = "unexplained"
#: For so many seconds after a fault, resets are counted under the name of the fault.
ACTIVE = 5.0


class Fault(NamedTuple):
    """A fault that the test has caused, at a monotonic time."""

    name: str
    at: float


@dataclass
class Causes:
    """The resets that clients got, counted by cause and by the reason in the message."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    during: Counter[str] = field(default_factory=Counter)  # by each fault that was active then
    unexplained: list[str] = field(default_factory=list)  # what the test knows of each such reset

    def add(self, other: Causes) -> None:
        """Adds the resets of another round."""
        self.counts += other.counts
        self.during += other.during
        self.unexplained += other.unexplained

    def note(self, record: Reset, cause: str, active: set[str], problem: str) -> None:
        """Counts a reset.

        :param active: the names of the faults that were active then.
        :param problem: describes the reset, for the case that nothing explains it.
        """
        self.counts[cause, record.reason] += 1
        self.during.update(active)
        if cause == UNEXPLAINED:
            self.unexplained.append(f"{problem}: {record}, during {sorted(active)}")

    def __str__(self) -> str:
        causes = [f"{count} x {cause} ({reason})" for (cause, reason), count in self.counts.most_common()]
        during = [f"{count} x {name}" for name, count in self.during.most_common()]
        return f"{', '.join(causes)}; active: {', '.join(during) or 'no fault'}" if causes else "no reset"


def causes_of(
    account: LogAccount, logs: Iterable[Log], *, kept: int, faults: Sequence[Fault] = (), foreign: str = ""
) -> Causes:
    """Finds the cause of each reset in the logs of clients.

    :param kept: how many events the broker keeps of each channel.
    :param faults: what the test did, in order of time.
    :param foreign: the name of the faults that write foreign data to the channels of these clients.
    """
    published, causes = _Published(account), Causes()
    for number, log in enumerate(logs):
        for record, cursor, is_again in _resets(log):
            missed = published.missed(record, cursor)
            cause, is_gone = UNEXPLAINED, record.reason == "history" or is_again
            if is_gone and missed and min(missed.values()) > kept:
                cause = BEHIND
            elif is_gone and any(fault.name == foreign and fault.at < record.at for fault in faults):
                cause = FOREIGN
            problem = f"client {number} at {cursor} had missed {missed}"
            active = {fault.name for fault in faults if 0 < record.at - fault.at < ACTIVE}
            causes.note(record, cause, active, problem)
    return causes


def _resets(log: Log) -> Iterator[tuple[Reset, str | None, bool]]:
    """Yields each reset, the cursor that the client had before, and whether the client came with LOST.

    A client comes with LOST if its last connection broke before the reset. Then its older cursor counts.
    """
    cursor = None
    for connection in log:
        came_lost = connection.came_with == LOST
        cursor = cursor if came_lost else connection.came_with
        for record in connection.records:
            if isinstance(record, Reset):
                yield record, cursor, came_lost
            after = cursor_of(record)
            cursor = cursor if after in (None, EARLIEST, LOST) else after


class _Published:
    """Finds how many events of a channel came between two moments."""

    def __init__(self, account: LogAccount) -> None:
        self._ids: defaultdict[str, list[int]] = defaultdict(list)
        self._sent: defaultdict[str, list[float]] = defaultdict(list)
        self._unknown = Counter(name for channels in account.unknown.values() for name in channels)
        for event in account.events:
            cursor = parse(event.cursor)
            assert cursor is not None
            for name in event.channels:
                self._ids[name].append(cursor.id)
                self._sent[name].append(account.sent.get(event.serial, 0.0))
        for ids in self._ids.values():
            ids.sort()
        for times in self._sent.values():
            times.sort()

    def missed(self, record: Reset, cursor: str | None) -> dict[str, int]:
        """For each channel of the reset, at most how many events were published after the client's cursor and
        before the reset. Empty if the client had no cursor."""
        position = parse(cursor or "")
        if position is None:
            return {}
        return {
            name: bisect_right(self._sent[name], record.at)
            - bisect_right(self._ids[name], position.id)
            + self._unknown[name]
            for name in record.channels
        }
