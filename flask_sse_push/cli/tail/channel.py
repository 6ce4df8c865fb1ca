"""Channels followed at the broker itself: no app, no rights, no stream of a worker in between."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Sequence

from ...brokers.base import Broker, Echo, History, LinkMessage, LiveEvent, Subscribed
from ...errors import BrokerUnavailable
from ...history.link import LinkReader
from ...protocol.cursor import EARLIEST, Cursor, belongs, parse
from ...protocol.entry import Entry
from ..common import entry_fields
from .news import Beat, Came, Lost, Missed, News, Opened

#: Silence after which a link counts as dead, in probes.
PATIENCE = 2


class ChannelSource:
    """Some channels of a broker. `run` is the body of a thread; the other methods may be called from any.

    The history is read when the broker has confirmed all subscriptions, and what came in between is in it:
    ids grow, so whatever is not above the position was told already.

    :param cursor: where to begin, `earliest`, or empty for now.
    :param last: without a cursor, begin with so many of the newest events.
    :param probe: seconds between two probes.
    :param tell: gets all that is to be told. May block.
    """

    def __init__(
        self,
        broker: Broker,
        channels: Sequence[str],
        cursor: str,
        last: int,
        probe: float,
        report: Callable[[News], None],
    ) -> None:
        self._broker = broker
        self._channels = tuple(dict.fromkeys(channels))
        self._cursor = cursor
        self._last = last
        self._probe = probe
        self._report = report
        self._inbox = f"tail-{secrets.token_hex(4)}"
        self._reader = LinkReader(broker, self._inbox, lambda item: self._deliver(item[1]), PATIENCE * probe)
        self._due = set(self._channels)  # subscriptions that are not confirmed
        self._epoch = ""
        self._position = 0  # everything up to here was told
        self._closed = threading.Event()

    def run(self) -> None:
        """Follows the channels until it is closed."""
        threading.Thread(target=self._keep_probing, daemon=True).start()
        self._reader.subscribe(self._channels)
        self._reader.run()

    def _keep_probing(self) -> None:
        while not self._closed.wait(self._probe):
            if self._reader.connected:
                self._reader.expect_echo(True)
                try:
                    self._broker.probe(self._inbox)
                except BrokerUnavailable:
                    self._reader.expect_echo(False)

    def _deliver(self, signals: list[LinkMessage] | None) -> None:
        if signals is None:
            self._due = set(self._channels)
            if not self._closed.is_set():
                self._report(Lost("the link to the broker broke", 0.0))
            return
        for signal in signals:
            if isinstance(signal, Subscribed):
                self._due.discard(signal.channel)
                if not self._due:
                    self._catch_up()
            elif isinstance(signal, LiveEvent) and not self._due:
                self._hear(signal)
            elif isinstance(signal, Echo):
                self._report(Beat())

    def _hear(self, signal: LiveEvent) -> None:
        try:
            entry = Entry.parse(signal.stored, signal.channel)
        except ValueError:  # a foreign hand published it
            return
        if entry.epoch != self._epoch or entry.prev > self._position:
            self._catch_up()
        self._pass_on(entry, signal.channel)

    def _pass_on(self, entry: Entry, channel: str) -> None:
        if entry.id > self._position:
            event = entry_fields(entry)
            self._position = entry.id
            self._report(Came(event["type"], event["data"], event["id"], channel))

    def _catch_up(self) -> None:
        """Tells what the broker has after the position, or after where to begin."""
        begins = not self._epoch
        start, lost = self._start(self._broker.history({}, self._inbox))
        found = self._broker.history(dict.fromkeys(self._channels, start), self._inbox)
        gone = [name for name, past in found.channels.items() if 0 < start < past.start]
        if gone and not lost:
            lost = f"{', '.join(gone)}: the broker no longer has what was missed"
        if lost:
            self._report(Missed(lost))
        asked = self._cursor != "" or not begins
        self._report(Opened(asked and not lost, self._channels))
        self._epoch, self._position = found.epoch, start
        for entry, name in self._newest(found) if begins else _in_order(found):
            self._pass_on(entry, name)
        self._position = max(self._position, found.last)

    def _start(self, snapshot: History) -> tuple[int, str]:
        """The position to go on from, and what was lost before it, if anything was."""
        if self._epoch:
            return _after(Cursor(self._epoch, self._position), snapshot)
        if self._cursor == EARLIEST or (self._last and not self._cursor):
            return 0, ""
        if not self._cursor:
            return snapshot.last, ""
        asked = parse(self._cursor)
        return _after(asked, snapshot) if asked else (snapshot.last, "the cursor is not one of ours")

    def _newest(self, found: History) -> list[tuple[Entry, str]]:
        entries = _in_order(found)
        return entries[-self._last :] if self._last and not self._cursor else entries

    def cut(self, why: str) -> None:
        """Does nothing: the reader renews a dead link by itself."""

    def close(self) -> None:
        """Lets `run` return soon; may be called twice."""
        self._closed.set()
        self._reader.close()


def _in_order(found: History) -> list[tuple[Entry, str]]:
    """All entries by id, each once, with the first of its channels."""
    once: dict[int, tuple[Entry, str]] = {}
    for name, past in found.channels.items():
        for entry in past.entries:
            once.setdefault(entry.id, (entry, name))
    return [once[id] for id in sorted(once)]


def _after(position: Cursor, snapshot: History) -> tuple[int, str]:
    if position.id > snapshot.last and position.epoch == snapshot.epoch:
        return snapshot.last, "the cursor lies in the future"
    if belongs(position, snapshot.epoch, snapshot.lineage):
        return position.id, ""
    if position.epoch in snapshot.lineage:
        return snapshot.lineage[position.epoch], "a failover of the broker lost events"
    return 0, "the broker lost its data, or the cursor is of another one"
