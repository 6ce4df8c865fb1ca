"""The relay: publishes the rows of an outbox in the order of their ids, and removes them.

A row is removed after it is published. If the relay is killed in between, the next relay publishes the row
again, with the same idempotency id, and the broker stores nothing.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from sqlalchemy import Connection, Engine, Select, Table, delete, func, select, update
from sqlalchemy.exc import SQLAlchemyError

from ..brokers.announcer import MessageAnnouncer
from ..brokers.base import NO_INBOX
from ..protocol.entry import Publication
from ..protocol.printable import printable
from . import wakes
from .lease import LEASE, Lease
from .relay_log import RelayLog
from .tables import clock, readable, to_event

logger = logging.getLogger(__name__)

#: At most this many rows are read at once, and at most about this many bytes.
PAGE, PAGE_BYTES = 500, 16_000_000
#: At most this many rows are published in one call.
CHUNK = 100
#: Seconds until the relay tries again after an error.
PAUSE = 1.0
#: How long `drain` waits for another relay, in seconds. The lease of a relay that was killed expires before.
DRAIN_TIME = LEASE + 3.0
#: A row is set aside if it fails this many times while the broker works.
TRIES = 5
#: At most this many characters say why a row is set aside.
MAX_PROBLEM = 1000
#: Seconds between two checks whether rows are too old or too many.
CHECK_INTERVAL = 60.0


class Source(Protocol):
    """An outbox, as the relay needs it."""

    events: Table
    relays: Table
    max_age: float  # seconds
    max_rows: int

    @property
    def name(self) -> str:
        """The name of the table with the events."""

    @property
    def engine(self) -> Engine:
        """The engine of the database."""


class Relay:
    """Publishes the events of one outbox, as long as no other relay of this outbox works.

    `published` is how many events this relay has published.

    :param stopping: whether this process is stopping.
    :param tell: gets each text about what the relay does, except errors. The default is the log.
    """

    def __init__(
        self,
        outbox: Source,
        announcer: MessageAnnouncer,
        stopping: Callable[[], bool] = lambda: False,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self._outbox = outbox
        self._announcer = announcer
        self._stopping = stopping
        self._table = outbox.events
        self._page = max(1, min(PAGE, PAGE_BYTES // announcer.max_message))
        self._lease = Lease(outbox.relays)
        self._waiter: wakes.Waiter | None = None
        self._failures: dict[int, int] = {}  # how often publishing a row has failed, by the row's id
        self._check_at = 0.0
        self._closed = False
        self._log = RelayLog(outbox.name, tell)
        self.published = 0

    def close(self) -> None:
        """Lets `run` return after the event that it publishes now. May be called twice, also by a signal."""
        self._closed = True

    def drain(self) -> None:
        """Publishes all events that wait now, or waits until another relay has published them.

        :raises TimeoutError: if another relay works and does not publish the events.
        :raises BrokerUnavailable: if the broker does not reply in time.
        :raises SQLAlchemyError: if the database fails.
        """
        last, deadline = self._last_row(), time.monotonic() + DRAIN_TIME
        try:
            while self.run_once() or self._waits_for_another(last, deadline):
                pass
        finally:
            self._release()

    def _waits_for_another(self, last: int, deadline: float) -> bool:
        """Returns whether another relay has yet to publish a row up to the id `last`. Waits a moment then.

        :raises TimeoutError: if the deadline is over.
        """
        if self._lease.lasts() or not 0 < self._first_row() <= last:
            return False
        if time.monotonic() > deadline:
            problem = "another relay works, and has not published the events that wait"
            raise TimeoutError(f"the outbox {self._outbox.name} is not drained: {problem}")
        self._log.waits()
        time.sleep(wakes.POLL)
        return True

    def _first_row(self) -> int:
        return self._find(select(func.min(self._table.c.id)))

    def _last_row(self) -> int:
        return self._find(select(func.max(self._table.c.id)))

    def _find(self, query: Select[Any]) -> int:
        """Returns the id of a row that waits; 0 if there is none."""
        with self._outbox.engine.connect() as connection:
            return connection.execute(query.where(self._table.c.problem.is_(None))).scalar() or 0

    def run(self) -> None:
        """Publishes events until `close` is called or the process stops. Never raises an `Exception`."""
        try:
            while not self._ends():
                with self._errors_logged():
                    self._run_while_working()
        finally:
            self._close_waiter()
            self._release()

    def _run_while_working(self) -> None:
        """Publishes all events that wait, then waits for a commit. Without the lease, only waits."""
        if not self._has_lease():
            self._close_waiter()  # commits must not wake relays that do not work
            self._log.waits()
            time.sleep(wakes.PATIENCE)
            return
        self._log.has_lease()
        if self._waiter is None:
            self._waiter = wakes.make_waiter(self._outbox.engine, self._announcer, self._outbox.name)
        while self.run_once() and not self._ends():
            pass
        self._waiter.wait()
        self._log.succeeds()

    def _has_lease(self) -> bool:
        if self._lease.lasts():
            return True
        with self._outbox.engine.connect() as connection:
            return self._lease.take(connection)

    def run_once(self) -> bool:
        """Publishes one page of events. Returns whether more may wait. Blocks until they are published.

        :raises BrokerUnavailable: if the broker does not reply in time.
        :raises SQLAlchemyError: if the database fails.
        """
        with self._outbox.engine.connect() as connection:
            if not self._lease.take(connection):
                return False
            waiting = self._table.c.problem.is_(None)
            query = select(*readable(self._table)).where(waiting).order_by(self._table.c.id).limit(self._page)
            rows = connection.execute(query).all()
            connection.commit()
            self._publish(connection, rows)
            if time.monotonic() >= self._check_at:
                self._check_at = time.monotonic() + CHECK_INTERVAL
                self._remove_old(connection)
        return len(rows) == self._page

    def _ends(self) -> bool:
        return self._closed or self._stopping()

    def _publish(self, connection: Connection, rows: Sequence[Any]) -> None:
        """Publishes rows in order. Removes each published row from the table, also if another row fails."""
        done: list[int] = []
        try:
            for first in range(0, len(rows), CHUNK):
                if self._ends() or not (self._lease.lasts() or self._lease.take(connection)):
                    break
                done += self._publish_chunk(connection, rows[first : first + CHUNK])
        finally:
            if done:
                self.published += len(done)
                self._log.succeeds()
                connection.execute(delete(self._table).where(self._table.c.id.in_(done)))
                connection.commit()

    def _publish_chunk(self, connection: Connection, rows: Sequence[Any]) -> Iterator[int]:
        """Publishes rows in one call, or one by one if this fails. Yields the id of each published row."""
        try:
            self._announcer.publish_each([self._event(row) for row in rows])
        except Exception:  # one of the rows may be to blame; those that are stored are not stored again
            for row in rows:
                if self._publish_row(connection, row):
                    yield row.id
        else:
            yield from (row.id for row in rows)

    def _event(self, row: Any) -> tuple[Publication, str]:
        return to_event(row, self._announcer.max_message)

    def _publish_row(self, connection: Connection, row: Any) -> bool:
        """Publishes a row, or sets it aside. Returns whether it is published.

        :raises Exception: if publishing fails, but may succeed later.
        """
        try:
            self._announcer.publish_each([self._event(row)])
        except Exception as error:
            if not self._is_hopeless(row.id, error):
                raise
            self._set_aside(connection, row, error)
            return False
        self._failures.pop(row.id, None)
        return True

    def _is_hopeless(self, id: int, error: Exception) -> bool:
        """Whether a row can never be published. It must not hold up the others."""
        if isinstance(error, ValueError):  # also InvalidEvent
            return True
        self._announcer.broker.probe(NO_INBOX)  # if this raises BrokerUnavailable, the row is not to blame
        tries = self._failures[id] = self._failures.get(id, 0) + 1
        return tries >= TRIES

    def _set_aside(self, connection: Connection, row: Any, error: Exception) -> None:
        self._failures.pop(row.id, None)
        connection.execute(
            update(self._table)
            .where(self._table.c.id == row.id)
            .values(problem=printable(f"{type(error).__name__}: {error}"[:MAX_PROBLEM]))
        )
        connection.commit()
        logger.error(
            "row %d of %s cannot be published and is set aside (channels %s): %s",
            row.id, self._outbox.name, printable(str(row.channels)[:200]), error,
            extra={"event": "outbox_set_aside", "row": row.id},
        )  # fmt: skip

    def _remove_old(self, connection: Connection) -> None:
        """Removes rows that are too old, and the oldest rows if there are too many."""
        columns, outbox = self._table.c, self._outbox
        newest = select(columns.id).order_by(columns.id.desc()).offset(outbox.max_rows).limit(1)
        first = connection.execute(newest).scalar()
        removed = connection.execute(
            delete(self._table).where(columns.created < clock() - outbox.max_age)
        ).rowcount
        if first is not None:
            removed += connection.execute(delete(self._table).where(columns.id <= first)).rowcount
        connection.commit()
        if removed:
            logger.error(
                "%d events of the outbox %s were removed unpublished: they were older than %g seconds, or "
                "more than %d events waited",
                removed, outbox.name, outbox.max_age, outbox.max_rows,
                extra={"event": "outbox_removed", "events": removed},
            )  # fmt: skip

    # -- errors --------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _errors_logged(self) -> Any:
        """Logs an error of the block, and pauses."""
        try:
            yield
        except Exception as error:
            self._close_waiter()
            self._log.fails(error)
            self._release()  # a relay on another machine may reach the broker
            time.sleep(PAUSE)

    def _release(self) -> None:
        with contextlib.suppress(SQLAlchemyError), self._outbox.engine.connect() as connection:
            self._lease.release(connection)

    def _close_waiter(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            with contextlib.suppress(Exception):
                waiter.close()
