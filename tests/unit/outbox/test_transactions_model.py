"""Random transactions with nested savepoints: the events that are published are those whose rows are kept."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable

import pytest
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.pool import StaticPool

from flask_sse_push import InvalidEvent
from flask_sse_push.outbox import Outbox, after_commit
from tests.support.published import Published

WALKS, STEPS = 60, 40
#: What a transaction may refuse after a step out of order, such as a release of a savepoint that has ended.
REFUSED = SQLAlchemyError, InvalidEvent


@pytest.fixture
def engine() -> Engine:
    """An engine whose savepoints work: by itself, the driver of SQLite begins no transaction before them."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    event.listen(engine, "connect", lambda connection, _: setattr(connection, "isolation_level", None))
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE diary (n INTEGER PRIMARY KEY)"))
    return engine


class Walk:
    """Takes random steps in one session. Each number goes into the app's table, an event and an outbox."""

    def __init__(self, seed: int, engine: Engine, published: Published, outbox: Outbox) -> None:
        self._choose = random.Random(seed)
        self._session = Session(engine)
        self._published, self._outbox = published, outbox
        self._savepoints: list[SessionTransaction] = []
        self._number = 0

    def run(self) -> None:
        steps: list[Callable[[], object]] = [self._write] * 3
        steps += [self._begin, self._end(SessionTransaction.commit), self._end(SessionTransaction.rollback)]
        steps += [self._session.commit, self._session.rollback, self._session.close, self._fail]
        for _ in range(STEPS):
            with contextlib.suppress(*REFUSED):
                self._choose.choice(steps)()
        self._session.close()

    def _write(self) -> None:
        self._number += 1
        after_commit(self._session, self._published.announcer).publish(self._number, channel="after")
        self._outbox.publish(self._session, self._number, channel="outbox")
        self._session.execute(text("INSERT INTO diary VALUES (:n)"), {"n": self._number})

    def _begin(self) -> None:
        self._savepoints.append(self._session.begin_nested())

    def _end(self, end: Callable[[SessionTransaction], None]) -> Callable[[], None]:
        def step() -> None:
            if self._savepoints:  # not always the innermost one
                end(self._savepoints.pop(self._choose.randrange(len(self._savepoints))))

        return step

    def _fail(self) -> None:
        self._session.execute(text("INSERT INTO diary VALUES ('no number')"))


def test_exactly_the_events_of_rows_that_are_kept_are_published(engine: Engine) -> None:
    kept = 0
    for seed in range(WALKS):
        published = Published()
        outbox = Outbox(engine, published.announcer, table=f"outbox_{seed}")
        outbox.create_all()
        with engine.begin() as connection:
            connection.execute(text("DELETE FROM diary"))
        Walk(seed, engine, published, outbox).run()
        outbox.drain()
        with engine.connect() as connection:
            rows = [str(n) for (n,) in connection.execute(text("SELECT n FROM diary ORDER BY n"))]
        assert (published.data("after"), published.data("outbox")) == (rows, rows), f"seed {seed}"
        kept += len(rows)
    assert kept > WALKS
    engine.dispose()
