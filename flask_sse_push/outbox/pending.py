"""The events that a SQLAlchemy session keeps until its transaction is committed or rolled back.

A transaction may have savepoints (`session.begin_nested`). Each event belongs to the savepoint or transaction
in which the app published the event. A savepoint that is released gives its events to what it lies in.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction

from ..brokers.announcer import MAX_BATCH
from ..errors import InvalidEvent
from ..protocol.entry import Publication

logger = logging.getLogger(__name__)

#: At most this many bytes of events may wait for one commit.
MAX_BYTES = 50_000_000
#: The attribute of a session with its `PendingEvents`. The app may clear `Session.info`.
_ATTRIBUTE = "_flask_sse_push_events"


class Destination(Protocol):
    """Where the events of a transaction go."""

    def before_commit(self, session: Session, events: Sequence[Publication]) -> None:
        """Called inside the transaction, just before the commit. An error stops the commit."""

    def committed(self, events: Sequence[Publication], late: Sequence[Publication]) -> None:
        """Called when the transaction is committed, and its connections are back in the pool.

        :param events: the events that `before_commit` got.
        :param late: the events that the app published after `before_commit` was called.
        """


@dataclass(slots=True)
class _Pending:
    """An event that waits for the commit."""

    event: Publication
    destination: Destination
    transaction: SessionTransaction  # the transaction or savepoint that the event belongs to
    is_prepared: bool = False  # whether `Destination.before_commit` got the event
    is_committed: bool = False


class PendingEvents:
    """The events of one session that wait for its commit, in the order in which the app published them."""

    def __init__(self) -> None:
        self._pending: list[_Pending] = []

    @classmethod
    def of(cls, session: Session) -> PendingEvents:
        """Returns the pending events of a session. They live as long as the session."""
        events: PendingEvents = vars(session).setdefault(_ATTRIBUTE, cls())
        return events

    def add(self, session: Session, destination: Destination, events: Iterable[Publication]) -> None:
        """Adds events to the transaction or savepoint that is open now. Begins a transaction if none is open.

        :raises InvalidEvent: if the session can take no events now, or if too many events wait.
        """
        transaction = _open_transaction(session)
        added = [_Pending(each, destination, transaction) for each in events]
        pending = self._pending + added
        if len(pending) > MAX_BATCH or sum(len(each.event.body) for each in pending) > MAX_BYTES:
            most = f"{MAX_BATCH} events, or {MAX_BYTES} bytes of events"
            raise InvalidEvent("session", f"one transaction has more than {most}; commit more often")
        self._pending = pending

    def before_commit(self, session: Session) -> None:
        """Calls `Destination.before_commit` for all events of the session.

        A destination may run code of the app, which may publish more events. These events follow in another
        call.
        """
        if session.get_nested_transaction() is not None:
            return  # a savepoint is released
        while new := [each for each in self._pending if not each.is_prepared]:
            destination = new[0].destination
            mine = [each for each in new if each.destination == destination]
            destination.before_commit(session, [each.event for each in mine])
            for each in mine:  # not before: if an error stops the commit, the app may commit again
                each.is_prepared = True

    def after_commit(self, session: Session) -> None:
        """Marks the events of a committed transaction, or moves those of a released savepoint."""
        transaction = session.get_nested_transaction() or session.get_transaction()
        for each in self._pending:
            if each.transaction is transaction:
                if transaction.nested:
                    each.transaction = _around(transaction)
                else:
                    each.is_committed = True

    def end(self, transaction: SessionTransaction) -> None:
        """Gives the events of a committed transaction to their destinations. Forgets those of others."""
        ended = [each for each in self._pending if each.transaction is transaction]
        self._pending = [each for each in self._pending if each.transaction is not transaction]
        committed = [each for each in ended if each.is_committed]
        for destination in _destinations(committed):
            mine = [each for each in committed if each.destination == destination]
            prepared = [each.event for each in mine if each.is_prepared]
            late = [each.event for each in mine if not each.is_prepared]
            try:
                destination.committed(prepared, late)
            except Exception as error:  # the commit of the app has succeeded
                log_unpublished([*prepared, *late], error)


def log_unpublished(events: Sequence[Publication], error: Exception) -> None:
    """Logs the types and channels of events that could not be published after their commit. Logs no data."""
    shown = "; ".join(f"{type_of(each)} to {', '.join(each.channels[:10])}" for each in events[:20])
    logger.error(
        "a transaction is committed, but its %d events were not published (%s%s): %s",
        len(events), shown, "; …" * (len(events) > 20), error,
        extra={"event": "unpublished", "events": len(events)},
    )  # fmt: skip


def type_of(event: Publication) -> str:
    """Returns the type of an event; `message` if it has none."""
    line = event.body.partition(b"\n")[0]
    return line.removeprefix(b"event: ").decode() if line.startswith(b"event: ") else "message"


def real_session(session: Any) -> Session:
    """Returns the `Session` behind a scoped session, an `AsyncSession` or a session.

    :raises TypeError: if `session` is something else.
    """
    found = session() if callable(session) and hasattr(session, "registry") else session
    found = getattr(found, "sync_session", found)
    if not isinstance(found, Session):
        raise TypeError(
            f"session is a {type(session).__name__}, must be a session of SQLAlchemy, such as db.session"
        )
    return found


def _open_transaction(session: Session) -> SessionTransaction:
    """Returns the innermost savepoint or transaction of a session. Begins a transaction if none is open.

    A rollback of a session without a transaction calls no event of SQLAlchemy. The events would then wait
    for the next transaction. So an event begins a transaction, as `session.add` does.

    :raises InvalidEvent: if the transaction has ended or failed, or if there is none and none begins by
        itself.
    """
    if session.get_transaction() is None:
        if not session.autobegin:
            raise InvalidEvent(
                "session", "has no transaction, and autobegin=False: call session.begin() first"
            )
        session.begin()
    transaction = session.get_nested_transaction() or session.get_transaction()
    assert transaction is not None
    if not transaction.is_active:
        problem = "its transaction is prepared or committed, or has failed and must be rolled back"
        raise InvalidEvent("session", f"takes no events now: {problem}")
    return transaction


def _around(savepoint: SessionTransaction) -> SessionTransaction:
    """Returns the savepoint or transaction that a savepoint lies in."""
    outer = savepoint.parent
    while outer is not None and outer.parent is not None and not outer.nested:
        outer = outer.parent  # this is the transaction that SQLAlchemy opens for a flush
    assert outer is not None
    return outer


def _destinations(events: Iterable[_Pending]) -> list[Destination]:
    return list(dict.fromkeys(each.destination for each in events))


def _before_commit(session: Session) -> None:
    if events := vars(session).get(_ATTRIBUTE):
        events.before_commit(session)


def _after_commit(session: Session) -> None:
    if events := vars(session).get(_ATTRIBUTE):
        events.after_commit(session)


def _after_transaction_end(session: Session, transaction: SessionTransaction) -> None:
    if events := vars(session).get(_ATTRIBUTE):
        events.end(transaction)


event.listen(Session, "before_commit", _before_commit)
# With `insert`, these functions run before those of the app, which may raise an error.
event.listen(Session, "after_commit", _after_commit, insert=True)
event.listen(Session, "after_transaction_end", _after_transaction_end, insert=True)
