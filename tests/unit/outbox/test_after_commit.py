"""`after_commit`: events go out after the commit of their transaction, together, and not after a rollback."""

from __future__ import annotations

import contextlib
import gc
import logging
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Column, Engine, Integer, MetaData, String, Table, create_engine, event, insert, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Mapped, Session, declarative_base, mapped_column, scoped_session, sessionmaker
from sqlalchemy.pool import StaticPool

from flask_sse_push import InvalidEvent, MessageTooLarge, SSEBlueprint
from flask_sse_push.brokers.announcer import MAX_BATCH
from flask_sse_push.outbox import after_commit
from flask_sse_push.outbox import pending as pending_module
from flask_sse_push.outbox.transaction import Transaction
from tests.support import coroutines
from tests.support.processes import ROOT
from tests.support.published import Published

Base: Any = declarative_base()


class Order(Base):  # type: ignore[misc]
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    with Session(engine) as session:
        yield session


@pytest.fixture
def published() -> Published:
    return Published()


def publisher(session: Any, published: Published) -> Transaction:
    return after_commit(session, published.announcer)


# -- commit and rollback -------------------------------------------------------------------------------------


def test_events_go_out_in_one_batch_after_the_commit(session: Session, published: Published) -> None:
    publisher(session, published).publish("a")
    session.add(Order(id=1, name="x"))
    publisher(session, published).publish_many([{"data": "b"}, {"data": "c", "channel": "news"}])
    publisher(session, published).send_to_user(7, "d")
    publisher(session, published).broadcast("e")
    session.flush()
    assert published.broker.calls == []
    session.commit()
    assert published.broker.calls == [["a", "b", "c", "d", "e"]]
    assert published.data("news") == ["c"]
    assert published.data("user:7") == ["d"]


def test_the_app_may_use_and_clear_the_info_of_its_session(engine: Engine, published: Published) -> None:
    with Session(engine, info={"flask_sse_push": 1}) as session:
        publisher(session, published).publish("a")
        session.info.clear()
        session.commit()
    assert published.broker.calls == [["a"]]


def test_a_session_that_is_dropped_takes_its_events_with_it(engine: Engine, published: Published) -> None:
    session = Session(engine)
    publisher(session, published).publish("a")
    dropped = weakref.ref(session)
    del session
    gc.collect()
    assert dropped() is None
    assert published.broker.calls == []


def test_a_notification_has_the_standard_fields(session: Session, published: Published) -> None:
    publisher(session, published).notify("paid", {"order": 7}, level="warning", channel="shop")
    session.commit()
    assert '"level": "warning"' in published.data("shop")[0]


def test_each_transaction_of_a_session_has_its_own_events(session: Session, published: Published) -> None:
    for data in ("a", "b"):
        publisher(session, published).publish(data)
        session.commit()
    session.commit()
    assert published.broker.calls == [["a"], ["b"]]


ENDS: dict[str, Callable[[Session], None]] = {
    "rollback": Session.rollback,
    "close": Session.close,
    "reset": Session.reset,
    "invalidate": Session.invalidate,
}


@pytest.mark.parametrize("with_data", [True, False], ids=["with data", "with events only"])
@pytest.mark.parametrize("end", ENDS)
def test_a_rollback_forgets_the_events(
    session: Session, published: Published, end: str, with_data: bool
) -> None:
    if with_data:
        session.add(Order(id=1, name="x"))
        session.flush()
    publisher(session, published).publish("never")
    ENDS[end](session)
    publisher(session, published).publish("later")
    session.commit()
    assert published.broker.calls == [["later"]]


def test_a_commit_that_fails_publishes_nothing(session: Session, published: Published) -> None:
    session.add_all([Order(id=1, name="same"), Order(id=2, name="same")])
    publisher(session, published).publish("never")
    with pytest.raises(IntegrityError):
        session.commit()
    session.rollback()
    session.commit()
    assert published.broker.calls == []


def test_the_context_manager_of_a_transaction_works(engine: Engine, published: Published) -> None:
    with Session(engine) as session, session.begin():
        publisher(session, published).publish("a")
    with contextlib.suppress(ZeroDivisionError), Session(engine) as session, session.begin():
        publisher(session, published).publish("never")
        raise ZeroDivisionError
    assert published.broker.calls == [["a"]]


def test_sessions_of_one_request_do_not_mix(engine: Engine, published: Published) -> None:
    with Session(engine) as first, Session(engine) as second, Session(engine) as third:
        for session, data in ((first, "1"), (second, "2"), (third, "3")):
            publisher(session, published).publish(data)
        third.commit()
        second.rollback()
        first.commit()
    assert published.broker.calls == [["3"], ["1"]]


def test_each_announcer_gets_its_own_batch(session: Session, published: Published) -> None:
    other = Published()
    publisher(session, published).publish("a")
    publisher(session, other).publish("b")
    publisher(session, published).publish("c")
    session.commit()
    assert published.broker.calls == [["a", "c"]]
    assert other.broker.calls == [["b"]]


# -- savepoints ----------------------------------------------------------------------------------------------


def test_a_savepoint_that_is_rolled_back_forgets_only_its_own_events(
    session: Session, published: Published
) -> None:
    publish = publisher(session, published).publish
    publish("1")
    with session.begin_nested():
        publish("2")
        lost = session.begin_nested()
        publish("never")
        with session.begin_nested():
            publish("never: released into a savepoint that is rolled back")
        lost.rollback()
        publish("3")
    publish("4")
    session.commit()
    assert published.broker.calls == [["1", "2", "3", "4"]]


def test_a_savepoint_is_not_published_before_its_transaction(session: Session, published: Published) -> None:
    with session.begin_nested():
        publisher(session, published).publish("never")
    assert published.broker.calls == []
    session.rollback()
    session.commit()
    assert published.broker.calls == []


def test_a_flush_that_fails_in_a_savepoint_takes_its_events(session: Session, published: Published) -> None:
    session.add(Order(id=1, name="same"))
    publisher(session, published).publish("kept")
    with contextlib.suppress(IntegrityError), session.begin_nested():
        publisher(session, published).publish("never")
        session.add(Order(id=2, name="same"))
        session.flush()
    session.commit()
    assert published.broker.calls == [["kept"]]


@pytest.mark.parametrize("directly", [True, False], ids=["of the transaction", "of the session"])
def test_a_commit_takes_open_savepoints_with_it(
    session: Session, published: Published, directly: bool
) -> None:
    transaction = session.begin()
    publisher(session, published).publish("1")
    session.begin_nested()
    publisher(session, published).publish("2")
    (transaction if directly else session).commit()
    assert published.broker.calls == [["1", "2"]]


def test_events_of_a_flush_hook_belong_to_the_transaction(session: Session, published: Published) -> None:
    def hook(session: Session, *_: Any) -> None:
        publisher(session, published).publish("flushed")

    event.listen(session, "after_flush", hook)
    with session.begin_nested():
        session.add(Order(id=1, name="x"))
    session.add(Order(id=2, name="y"))
    session.commit()
    assert published.broker.calls == [["flushed", "flushed"]]


# -- kinds of sessions ---------------------------------------------------------------------------------------


def test_the_session_of_flask_sqlalchemy_works_in_an_app(tmp_path: Any) -> None:
    app, sse = Flask(__name__), SSEBlueprint("sse")
    app.config |= {
        "SQLALCHEMY_DATABASE_URI": f"sqlite:///{tmp_path}/app.db",
        "SSE_PUSH_BROKER_URL": "memory://",
    }
    db = SQLAlchemy(app)
    sse.init_app(app)

    @app.post("/orders/<int:number>")
    def order(number: int) -> str:
        sse.after_commit(db.session).publish({"order": number}, "paid", channel="orders")
        db.session.execute(text("SELECT 1"))
        if number:
            db.session.commit()
        return ""

    client = app.test_client()
    for number in (1, 0, 2):
        client.post(f"/orders/{number}")
    with app.app_context():
        broker = sse.announcer.broker
        frames = [entry.frame for entry in broker.history({"orders": 0}, "nobody").channels["orders"].entries]
        assert [frame.partition(b"\n")[2] for frame in frames] == [
            b'event: paid\ndata: {"order": %d}\t\n\n' % number for number in (1, 2)
        ]
        db.engine.dispose()


def test_a_scoped_session_works(engine: Engine, published: Published) -> None:
    scoped = scoped_session(sessionmaker(engine))
    publisher(scoped, published).publish("a")
    scoped.commit()
    publisher(scoped, published).publish("never")
    scoped.remove()
    scoped.commit()
    assert published.broker.calls == [["a"]]
    scoped.remove()


def test_an_async_session_works_through_its_sync_session(published: Published) -> None:
    async def run() -> None:
        engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
        async with AsyncSession(engine) as session:
            publisher(session, published).publish("a")
            await session.commit()
            publisher(session, published).publish("never")
            await session.rollback()
            await session.commit()
        await engine.dispose()

    coroutines.run(run)
    assert published.broker.calls == [["a"]]


def test_a_session_of_two_phases_works(engine: Engine, published: Published) -> None:
    with Session(engine, twophase=True) as session:
        publisher(session, published).publish("a")
        session.prepare()
        assert published.broker.calls == []
        session.commit()
    assert published.broker.calls == [["a"]]


def test_a_session_without_autobegin_must_have_begun(engine: Engine, published: Published) -> None:
    with Session(engine, autobegin=False) as session:
        with pytest.raises(InvalidEvent, match=r"call session\.begin\(\) first"):
            publisher(session, published).publish("x")
        with session.begin():
            publisher(session, published).publish("a")
    assert published.broker.calls == [["a"]]


@pytest.mark.parametrize("wrong", [None, "session", SQLAlchemy()], ids=["None", "a string", "db"])
def test_what_is_no_session_is_refused(wrong: Any, published: Published) -> None:
    with pytest.raises(TypeError, match=r"must be a session of SQLAlchemy, such as db\.session"):
        publisher(wrong, published)


# -- errors --------------------------------------------------------------------------------------------------


def test_wrong_events_are_refused_at_the_call(session: Session) -> None:
    published = Published(max_message=10)
    with pytest.raises(InvalidEvent):
        publisher(session, published).publish("x", channel="not a channel")
    with pytest.raises(InvalidEvent, match=r"events\[1\]"):
        publisher(session, published).publish_many([{"data": "good"}, {"data": "x", "channel": ""}])
    with pytest.raises(MessageTooLarge):
        publisher(session, published).publish("x" * 11)
    session.commit()
    assert published.broker.calls == []


def test_a_transaction_takes_a_bounded_number_of_events(
    session: Session, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher(session, published).publish_many([{"data": "x"}] * MAX_BATCH)
    with pytest.raises(InvalidEvent, match="commit more often"):
        publisher(session, published).publish("one too many")
    session.commit()
    assert len(published.broker.calls[0]) == MAX_BATCH
    monkeypatch.setattr(pending_module, "MAX_BYTES", 100)
    publisher(session, published).publish("x" * 80)
    with pytest.raises(InvalidEvent, match="100 bytes of events"):
        publisher(session, published).publish("x" * 80)


def test_a_broker_that_is_away_does_not_harm_the_commit(
    engine: Engine, published: Published, caplog: pytest.LogCaptureFixture
) -> None:
    published.broker.away = 1
    with Session(engine) as session:
        session.add(Order(id=1, name="x"))
        publisher(session, published).publish("secret", "paid", channel=["orders", "user:7"])
        publisher(session, published).publish("secret")
        session.commit()
        assert session.get(Order, 1)
        session.rollback()
        publisher(session, published).publish("next")
        session.commit()
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "2 events were not published (paid to orders, user:7; message to sse)" in record.message
    assert "the test has taken the server away" in record.message
    assert "secret" not in caplog.text
    assert published.broker.calls[1:] == [["next"]]


def test_an_error_of_another_listener_loses_no_event(session: Session, published: Published) -> None:
    def fail(session: Session) -> None:
        raise ZeroDivisionError

    publisher(session, published).publish("a")
    event.listen(session, "after_commit", fail)
    event.listen(Session, "after_commit", fail)
    try:
        with pytest.raises(ZeroDivisionError):
            session.commit()
    finally:
        event.remove(Session, "after_commit", fail)
    session.close()
    assert published.broker.calls == [["a"]]


EARLY = """
from sqlalchemy import create_engine, event
from sqlalchemy.orm import Session

def fail(session):
    raise ZeroDivisionError

event.listen(Session, "after_commit", fail)
from flask_sse_push.outbox import after_commit
from tests.support.published import Published
published = Published()
session = Session(create_engine("sqlite://"))
after_commit(session, published.announcer).publish("a")
try:
    session.commit()
except ZeroDivisionError:
    session.close()
print(published.data())
"""


def test_an_error_of_a_listener_that_was_there_first_loses_no_event() -> None:
    command = [sys.executable, "-c", EARLY]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (run.stdout, run.stderr) == ("['a']\n", "")


def test_a_transaction_that_has_ended_or_failed_takes_no_events(
    session: Session, published: Published
) -> None:
    problems = []

    def late(session: Session) -> None:
        with pytest.raises(InvalidEvent, match="is prepared or committed") as caught:
            publisher(session, published).publish("late")
        problems.append(caught.value)

    event.listen(session, "after_commit", late, once=True)
    session.commit()
    assert len(problems) == 1
    session.add_all([Order(id=1, name="same"), Order(id=2, name="same")])
    with pytest.raises(IntegrityError):
        session.flush()
    with pytest.raises(InvalidEvent, match="must be rolled back"):
        publisher(session, published).publish("failed")
    session.rollback()
    assert published.broker.calls == []


def test_a_commit_of_another_session_during_the_publish_is_no_problem(
    engine: Engine, published: Published
) -> None:
    def commit_more(session: Session) -> None:
        with Session(engine) as other:
            publisher(other, published).publish("inner")
            other.commit()

    with Session(engine) as session:
        publisher(session, published).publish("outer")
        event.listen(session, "after_commit", commit_more)
        session.commit()
    assert sorted(published.broker.calls) == [["inner"], ["outer"]]


def test_the_connection_is_back_in_the_pool_before_the_publish(tmp_path: Any, published: Published) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/pool.db")
    table = Table("t", MetaData(), Column("id", Integer, primary_key=True), Column("x", String(10)))
    table.create(engine)
    with Session(engine) as session:
        session.execute(insert(table).values(x="y"))
        publisher(session, published).publish("a")
        out = []
        publish = published.broker.publish
        published.broker.publish = lambda *given: out.append(engine.pool.checkedout()) or publish(*given)  # type: ignore
        session.commit()
    assert out == [0]
    engine.dispose()
