"""Publishing after the commit, without an outbox. If the process is killed in between, events are lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from ..brokers.announcer import MessageAnnouncer
from ..protocol.entry import Publication
from .transaction import Transaction


def after_commit(session: Any, announcer: MessageAnnouncer) -> Transaction:
    """Returns a `Transaction` whose events `announcer` publishes after the commit, in one atomic batch.

    :param session: a session of SQLAlchemy, such as `db.session` of Flask-SQLAlchemy. An `AsyncSession` works
        too, but the publish then blocks its event loop.
    :raises TypeError: if `session` is no session.
    """
    return Transaction(session, announcer, AnnouncerDestination(announcer))


@dataclass(frozen=True)
class AnnouncerDestination:
    """Publishes the events of a committed transaction at once. If this fails, the log says so."""

    announcer: MessageAnnouncer

    def before_commit(self, session: Session, events: Sequence[Publication]) -> None:
        """Does nothing."""

    def committed(self, events: Sequence[Publication], late: Sequence[Publication]) -> None:
        """Publishes all events in one batch. Blocks at most `SSE_PUSH_PUBLISH_TIMEOUT` seconds.

        :raises BrokerUnavailable: if the broker does not reply in time.
        """
        with self.announcer.batch() as batch:
            batch.publications += [*events, *late]
