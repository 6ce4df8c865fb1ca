"""The outbox: events are rows of the app's database, written in the same transaction as the app's data."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from flask import Blueprint, Flask, current_app, has_app_context, has_request_context
from sqlalchemy import Engine, MetaData, case, func, insert, inspect, select
from sqlalchemy.orm import Session

from ..brokers.announcer import DEFAULT_CHANNEL, MessageAnnouncer
from ..errors import ConfigError
from ..hub import background
from ..monitoring import signals
from ..monitoring.backlog import MOST, Backlog, backlogs
from ..protocol.entry import Publication
from ..transports import wsgi_server
from ..web.endpoints import Endpoints
from ..web.routes import EXTENSION
from .relay import Relay
from .tables import CLOCKS, clock, make_tables, to_row
from .transaction import Transaction
from .wakes import Waker, notify


class HasAnnouncer(Protocol):
    """A blueprint, such as `sse`."""

    @property
    def announcer(self) -> MessageAnnouncer:
        """The announcer of the current app."""


class Outbox:
    """Events that are published if, and only if, a transaction of the app's database is committed.

    `publish` writes an event as a row of the table `sse_push_outbox`, in the transaction of the app. A relay
    publishes the rows and removes them: the command `flask sse relay`, or one of the app's workers.

    :param db: the `SQLAlchemy` object of Flask-SQLAlchemy, or an engine, for SQLite, PostgreSQL, MariaDB or
        MySQL.
    :param push: the blueprint or the `MessageAnnouncer` that publishes. The default is the only blueprint of
        the current app.
    :param relay: whether a worker of the app is the relay. With False, run `flask sse relay`.
    :param table: the name of the table. A second table, which says which relay works, has the name and
        `_relay`.
    :param metadata: gets the tables. The default is `db.metadata`, if `db` has it.
    :param max_age: the relay removes rows that are older than this many seconds, and logs an ERROR.
    :param max_rows: if more rows wait, the relay removes the oldest rows, and logs an ERROR.
    """

    def __init__(
        self,
        db: Any,
        push: HasAnnouncer | MessageAnnouncer | None = None,
        *,
        relay: bool = False,
        table: str = "sse_push_outbox",
        metadata: MetaData | None = None,
        max_age: float = 7 * 86_400.0,
        max_rows: int = 1_000_000,
    ) -> None:
        if not isinstance(db, Engine) and (not hasattr(type(db), "engine") or hasattr(db, "sync_engine")):
            raise TypeError(
                f"db is a {type(db).__name__}, must be an Engine or Flask-SQLAlchemy's SQLAlchemy"
            )
        _check(push, max_age, max_rows)
        self._db = db
        self._push = push
        self._has_relay = relay
        self._relay: Relay | None = None
        self._relay_pid = 0  # the process in which this object has started its relay
        self.max_age = max_age
        self.max_rows = max_rows
        metadata = metadata or getattr(db, "metadata", None) or MetaData()
        self.events, self.relays = make_tables(metadata, table)
        self.waker = Waker(table)
        backlogs.add(self)
        if relay:
            signals.stream_opened.connect(self._on_stream)

    @property
    def name(self) -> str:
        """The name of the table with the events."""
        return self.events.name

    @property
    def engine(self) -> Engine:
        """The engine of the database.

        :raises ConfigError: if the outbox does not know this kind of database.
        """
        engine: Engine = self._db if isinstance(self._db, Engine) else self._db.engine
        if engine.dialect.name not in CLOCKS:
            kinds = "a database of SQLite, PostgreSQL, MariaDB or MySQL"
            raise ConfigError("the outbox's database", engine.dialect.name, kinds)
        return engine

    @property
    def announcer(self) -> MessageAnnouncer:
        """The announcer that publishes the events.

        :raises RuntimeError: if there is no `push`, and no current app with exactly one blueprint.
        """
        if isinstance(self._push, MessageAnnouncer):
            return self._push
        if self._push is not None:
            return self._push.announcer
        endpoints: Endpoints | None = current_app.extensions.get(EXTENSION) if has_app_context() else None
        all_of_them = endpoints.all() if endpoints is not None else []
        if len(all_of_them) != 1:
            raise RuntimeError(
                f"the outbox {self.name} needs an app context and an app with one blueprint, but there are "
                f"{len(all_of_them)}; or name the blueprint or announcer that publishes: Outbox(db, sse)"
            )
        return all_of_them[0].services.publishing.announcer

    def belongs_to(self, app: Flask) -> bool:
        """Whether the database and the blueprint of this outbox are those of an app."""
        push: object = self._push
        has_db = not hasattr(type(self._db), "init_app") or app.extensions.get("sqlalchemy") is self._db
        return has_db and (not isinstance(push, Blueprint) or push in app.blueprints.values())

    # -- publishing ----------------------------------------------------------------------------------------

    def publish(
        self,
        session: Any,
        data: Any,
        type: str | None = None,
        *,
        channel: str | Iterable[str] = DEFAULT_CHANNEL,
        retry: int | None = None,
        exclude: str | Iterable[str] | None = None,
        ttl: float | None = None,
        compress: str | None = None,
    ) -> None:
        """Publishes an event if the transaction of the session is committed.

        The commit writes the row. So events have the order of their commits, and a savepoint that is rolled
        back takes its events with it. `MessageAnnouncer.publish` explains the arguments. Does not block.

        :param session: a session of SQLAlchemy, such as `db.session`; also an `AsyncSession`.
        :raises InvalidEvent: if an argument is not valid, or if the session can take no events now.
        :raises MessageTooLarge: if the event is bigger than `SSE_PUSH_MAX_MESSAGE`.
        """
        self.within(session).publish(
            data, type, channel=channel, retry=retry, exclude=exclude, ttl=ttl, compress=compress
        )

    def publish_many(self, session: Any, events: Iterable[Mapping[str, Any]]) -> None:
        """Publishes several events, as `publish` does. Each event is a mapping with its arguments."""
        self.within(session).publish_many(events)

    def within(self, session: Any) -> Transaction:
        """Returns the transaction of a session, with the methods `notify`, `send_to_user` and `broadcast`
        too."""
        announcer = self.announcer
        return Transaction(session, announcer, _Rows(self, announcer))

    # -- tables and backlog --------------------------------------------------------------------------------

    def create_all(self) -> None:
        """Creates the tables that are missing. docs/database.md has the SQL for a migration."""
        metadata = self.events.metadata
        metadata.create_all(self.engine, tables=[self.events, self.relays])

    def check(self) -> None:
        """Checks that the tables exist. Blocks for two queries.

        :raises ConfigError: if one of them does not exist.
        """
        with self.engine.connect() as connection:
            for table in (self.events, self.relays):
                if not inspect(connection).has_table(table.name):
                    remedy = "in the database: call outbox.create_all(), or add the SQL of docs/database.md"
                    raise ConfigError("the outbox's table", table.name, remedy)

    def drain(self) -> int:
        """Publishes all events that wait now, for tests of an app. If a relay works, waits until it has
        published them. Returns how many events this call has published itself.

        :raises TimeoutError: if a relay works, and does not publish the events within 8 seconds.
        :raises BrokerUnavailable: if the broker does not reply in time.
        """
        relay = Relay(self, self.announcer)
        relay.drain()
        return relay.published

    def backlog(self) -> Backlog:
        """Returns how many events wait, for how long, and how many are set aside. Blocks for one query."""
        columns = self.events.c
        oldest = select(columns.created, columns.problem).order_by(columns.id).limit(MOST).subquery()
        first = func.min(case((oldest.c.problem.is_(None), oldest.c.created)))
        figures = select(func.count(), func.count(oldest.c.problem), clock() - first).select_from(oldest)
        with self.engine.connect() as connection:
            rows, set_aside, age = connection.execute(figures).one()
        return Backlog(self.name, rows - set_aside, max(0.0, age or 0.0), set_aside)

    # -- the relay in a worker -----------------------------------------------------------------------------

    def _on_stream(self, app: Any, **_: Any) -> None:
        """Called in an app context when a stream has opened: this process is a worker of the app."""
        if self.belongs_to(current_app._get_current_object()):  # type: ignore[attr-defined]
            self._start_relay()

    def serves_request(self) -> None:
        """Starts the relay if the app lets its workers be the relay, and if this process serves a request.

        Called after a commit. Before the commit, another greenlet could run and wait for the transaction.
        """
        if self._has_relay and has_request_context():
            self._start_relay()

    def _start_relay(self) -> None:
        if self._relay_pid == os.getpid():
            return
        self._relay_pid = os.getpid()
        signals.stream_opened.disconnect(self._on_stream)
        app = current_app._get_current_object()  # type: ignore[attr-defined]
        relay = self._relay = Relay(self, self.announcer, wsgi_server.is_stopping)

        def run() -> None:
            with app.app_context():
                relay.run()

        background.start("outbox", run)

    def close(self) -> None:
        """Lets the relay of this process end soon, if there is one. May be called twice.

        `flask sse relay`, `flask sse doctor` and the metrics pass over the outbox from now on.
        """
        backlogs.discard(self)
        signals.stream_opened.disconnect(self._on_stream)
        if self._relay is not None:
            self._relay.close()


def _check(push: object, max_age: object, max_rows: object) -> None:
    """Checks the arguments that would otherwise fail only when events are published or removed.

    :raises TypeError: if one of them has a wrong type; the message names the argument.
    :raises ValueError: if a limit is not above 0.
    """
    if push is not None and not isinstance(push, MessageAnnouncer) and not hasattr(type(push), "announcer"):
        raise TypeError(f"push is a {type(push).__name__}, must be the blueprint or a MessageAnnouncer")
    for name, limit in (("max_age", max_age), ("max_rows", max_rows)):
        if not isinstance(limit, (int, float)) or isinstance(limit, bool):
            raise TypeError(f"{name} is a {type(limit).__name__}, must be a number")
        if not limit > 0:
            raise ValueError(f"{name} is {limit}, must be above 0")


@dataclass(frozen=True)
class _Rows:
    """Writes the events of a transaction as rows of the outbox."""

    outbox: Outbox
    announcer: MessageAnnouncer

    def before_commit(self, session: Session, events: Sequence[Publication]) -> None:
        """Writes the rows, and makes the commit wake the relay.

        First writes the app's own changes. So a transaction that changes the same rows as another one gets
        its ids after the other one's commit.
        """
        session.flush()
        session.execute(insert(self.outbox.events), self._values(events))
        notify(session, self.outbox.events)

    def committed(self, events: Sequence[Publication], late: Sequence[Publication]) -> None:
        """Wakes the relay. Writes `late`, which missed their transaction, in a transaction of their own."""
        engine = self.outbox.engine
        self.outbox.serves_request()
        if late:
            with Session(engine) as session, session.begin():
                self.before_commit(session, late)
        if engine.dialect.name != "postgresql":
            self.outbox.waker.wake(self.announcer)

    def _values(self, events: Sequence[Publication]) -> list[dict[str, Any]]:
        return [{"event_key": f"outbox:{secrets.token_urlsafe(15)}", **to_row(each)} for each in events]
