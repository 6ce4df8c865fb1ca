"""What an app publishes in a transaction: the methods of `publish` and its kin, without cursors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..brokers.announcer import DEFAULT_CHANNEL, Batch, MessageAnnouncer
from .pending import Destination, PendingEvents, real_session


class Transaction:
    """Takes the events of the transaction that a SQLAlchemy session has open, or begins now.

    The methods check their arguments now, and return at once. The events are published after the commit, and
    forgotten with a rollback. A savepoint (`session.begin_nested`) that is rolled back forgets only its own
    events. One transaction takes at most 1000 events.
    """

    def __init__(self, session: Any, announcer: MessageAnnouncer, destination: Destination) -> None:
        self._session = real_session(session)
        self._announcer = announcer
        self._destination = destination

    def publish(
        self,
        data: Any,
        type: str | None = None,
        *,
        channel: str | Iterable[str] = DEFAULT_CHANNEL,
        retry: int | None = None,
        exclude: str | Iterable[str] | None = None,
        ttl: float | None = None,
        compress: str | None = None,
    ) -> None:
        """Publishes an event after the commit. `MessageAnnouncer.publish` explains the arguments.

        :raises InvalidEvent: if an argument is not valid, or if the session can take no events now.
        :raises MessageTooLarge: if the event is bigger than `SSE_PUSH_MAX_MESSAGE`.
        """
        batch = Batch(self._announcer, self._announcer.tracing)
        batch.publish(data, type, channel=channel, retry=retry, exclude=exclude, ttl=ttl, compress=compress)
        self._add(batch)

    def publish_many(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Publishes several events after the commit. Each event is a mapping with arguments of `publish`.

        :raises InvalidEvent: if an event is not valid; the message names the event. None is published then.
        """
        batch = Batch(self._announcer, self._announcer.tracing)
        batch.publish_many(events)
        self._add(batch)

    def notify(
        self, type: str, data: Any, *, level: str = "info", channel: str | Iterable[str] = DEFAULT_CHANNEL
    ) -> None:
        """Publishes the standard message of `MessageAnnouncer.notify` after the commit. Raises as `publish`
        does. The message has the time of this call."""
        batch = Batch(self._announcer, self._announcer.tracing)
        batch.notify(type, data, level=level, channel=channel)
        self._add(batch)

    def send_to_user(
        self, user_id: object, data: Any, type: str | None = None, *, compress: str | None = None
    ) -> None:
        """Publishes an event to the channel `user:<user_id>` after the commit. Raises as `publish` does, and
        TypeError as `MessageAnnouncer.revoke` does."""
        batch = Batch(self._announcer, self._announcer.tracing)
        batch.send_to_user(user_id, data, type, compress=compress)
        self._add(batch)

    def broadcast(self, data: Any, type: str | None = None, *, compress: str | None = None) -> None:
        """Publishes an event to every open stream after the commit. Raises as `publish` does."""
        batch = Batch(self._announcer, self._announcer.tracing)
        batch.broadcast(data, type, compress=compress)
        self._add(batch)

    def _add(self, batch: Batch) -> None:
        if batch.span is not None:
            batch.span.end()
        PendingEvents.of(self._session).add(self._session, self._destination, batch.publications)
