"""The outbox and its relay on each database: what is committed is published once, in the order of commits."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Engine, MetaData, Text, create_engine, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Mapped, Session, declarative_base, mapped_column

from flask_sse_push import BrokerUnavailable, ConfigError, InvalidEvent, MessageTooLarge, SSEBlueprint
from flask_sse_push.outbox import Outbox, lease, relay, relay_log, wakes
from flask_sse_push.outbox.relay import Relay
from tests.support import coroutines
from tests.support.deadline import eventually
from tests.support.published import Published

DATABASES = "sqlite", "postgresql", "mariadb"
Base: Any = declarative_base()


class Diary(Base):  # type: ignore[misc]
    __tablename__ = "diary"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(Text)


@pytest.fixture(params=DATABASES)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """An engine of each database, without tables."""
    sqlite = f"sqlite:///{tmp_path}/outbox.db?timeout=60"
    url = sqlite if request.param == "sqlite" else request.getfixturevalue(f"{request.param}_url")
    engine = create_engine(url)
    yield engine
    leftover = MetaData()
    leftover.reflect(engine)
    leftover.drop_all(engine)
    engine.dispose()


@pytest.fixture(autouse=True)
def _impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets relays notice soon that the test closes them."""
    monkeypatch.setattr(wakes, "PATIENCE", 0.2)


@pytest.fixture
def published() -> Published:
    return Published()


@pytest.fixture
def outbox(engine: Engine, published: Published) -> Outbox:
    outbox = Outbox(engine, published.announcer)
    outbox.create_all()
    return outbox


def commit(outbox: Outbox, *data: str, **fields: Any) -> None:
    """Publishes events in a transaction of their own."""
    with Session(outbox.engine) as session, session.begin():
        for each in data:
            outbox.publish(session, each, **fields)


def drain(outbox: Outbox) -> None:
    outbox.drain()


@contextlib.contextmanager
def running(outbox: Outbox) -> Iterator[Relay]:
    """Runs a relay in a thread until the block ends."""
    made = Relay(outbox, outbox.announcer)
    thread = threading.Thread(target=made.run)
    thread.start()
    try:
        yield made
    finally:
        made.close()
        thread.join(60)
        assert not thread.is_alive()


# -- what is committed is published --------------------------------------------------------------------------


def test_committed_events_are_published_and_removed(outbox: Outbox, published: Published) -> None:
    with Session(outbox.engine) as session:
        outbox.publish(session, "1", "paid", channel=["a", "b"], exclude=["c-1", "ü"], ttl=60)
        outbox.publish_many(session, [{"data": "2", "channel": "a"}, {"data": "3\0\u2028ü", "channel": "a"}])
        outbox.within(session).send_to_user(7, "4")
        outbox.within(session).broadcast("5")
        session.commit()
        outbox.publish(session, "never", channel="a")
        session.rollback()
    assert published.data("a") == []
    backlog = outbox.backlog()
    assert (backlog.waiting, backlog.set_aside) == (5, 0)
    assert 0 <= backlog.age < 3600
    drain(outbox)
    assert published.data("a") == ["1", "2", "3\0\u2028ü"]
    assert (published.data("user:7"), published.data("*")) == (["4"], ["5"])
    (entry,) = published.broker.history({"b": 0}, "nobody").channels["b"].entries
    assert entry.channels == ("a", "b")
    assert entry.exclude == frozenset({"c-1", "ü"})
    assert entry.expires > 0
    assert outbox.backlog() == ("sse_push_outbox", 0, 0.0, 0)


def test_savepoints_take_their_events_with_them(outbox: Outbox, published: Published) -> None:
    with Session(outbox.engine) as session:
        with session.begin_nested():
            outbox.publish(session, "1")
        lost = session.begin_nested()
        outbox.publish(session, "never")
        lost.rollback()
        session.commit()
        transaction = session.begin()
        session.begin_nested()
        outbox.publish(session, "2")
        transaction.commit()  # SQLAlchemy does not say that this is no commit of the savepoint
    drain(outbox)
    assert published.data() == ["1", "2"]


def test_events_come_in_the_order_of_the_commits(outbox: Outbox, published: Published) -> None:
    with Session(outbox.engine) as first, Session(outbox.engine) as second:
        outbox.publish(first, "published first, committed last")
        outbox.publish(second, "published last, committed first")
        second.commit()
        first.commit()
    drain(outbox)
    assert published.data() == ["published last, committed first", "published first, committed last"]


def test_transactions_that_change_one_row_come_in_the_order_of_their_changes(
    outbox: Outbox, published: Published
) -> None:
    """SQLAlchemy writes the change during the commit, so the order of the calls of `publish` says nothing."""
    Base.metadata.create_all(outbox.engine)
    with Session(outbox.engine) as session, session.begin():
        session.add(Diary(id=1, text=""))

    def write(writer: str) -> None:
        for number in range(25):
            with Session(outbox.engine, autoflush=False) as session, session.begin():
                line = f"{writer}{number}"
                diary = session.get(Diary, 1)
                assert diary
                outbox.publish(session, line)
                diary.text = Diary.text.concat(f"{line} ")

    threads = [threading.Thread(target=write, args=(writer,)) for writer in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    drain(outbox)  # a relay that ran meanwhile would see most events alone
    assert len(published.data()) == 100
    with Session(outbox.engine) as session:
        assert published.data() == session.scalars(select(Diary.text)).one().split()


def test_a_commit_wakes_the_relay_at_once(
    outbox: Outbox, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wakes, "PATIENCE", 3600.0)
    with running(outbox) as made:
        eventually(lambda: made._waiter)
        for number in range(1, 6):
            commit(outbox, str(number))
            eventually(lambda: len(published.data()) == number)  # noqa: B023 - called in this round only
        made.close()
        commit(outbox, "wakes the relay, which then ends")


def test_a_database_whose_driver_cannot_wait_is_polled(
    outbox: Outbox, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wakes, "make_waiter", lambda *_: wakes._Sleeper())
    with running(outbox):
        commit(outbox, "x")
        eventually(published.data)


def test_psycopg_waits_in_the_way_that_gevent_wants() -> None:
    """psycopg's own way of waiting, in C, would block all greenlets of the worker while the relay waits."""
    patched = "from gevent import monkey; monkey.patch_all()"
    program = f"{patched}; from psycopg import waiting; print(waiting.wait.__name__)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout in ("wait_poll\n", "wait_selector\n")  # not wait_c


def test_an_async_session_writes_rows_too(published: Published, tmp_path: Path) -> None:
    outbox = Outbox(create_engine(f"sqlite:///{tmp_path}/async.db"), published.announcer)
    outbox.create_all()

    async def run() -> None:
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/async.db")
        async with AsyncSession(engine) as session:
            outbox.publish(session, "a")
            await session.commit()
        await engine.dispose()

    coroutines.run(run)
    drain(outbox)
    assert published.data() == ["a"]
    outbox.engine.dispose()


def test_a_two_phase_commit_writes_rows_too(postgresql_url: str, published: Published) -> None:
    outbox = Outbox(create_engine(postgresql_url), published.announcer, table="two_phase")
    outbox.create_all()
    with Session(outbox.engine, twophase=True) as session:
        outbox.publish(session, "a")
        session.prepare()
        session.commit()
    drain(outbox)
    assert published.data() == ["a"]
    outbox.events.metadata.drop_all(outbox.engine)
    outbox.engine.dispose()


def test_wrong_events_are_refused_at_the_call(engine: Engine) -> None:
    outbox = Outbox(engine, Published(max_message=10).announcer)
    with Session(engine) as session:
        with pytest.raises(InvalidEvent):
            outbox.publish(session, "x", channel="not a channel")
        with pytest.raises(MessageTooLarge):
            outbox.publish(session, "x" * 11)


# -- the relay -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", [False, True], ids=["before", "after"])
def test_a_relay_that_ends_before_or_after_a_publish_stores_each_event_once(
    outbox: Outbox, published: Published, stored: bool
) -> None:
    commit(outbox, "1", "2", "3")
    published.broker.away, published.broker.loses_reply = 2, stored
    with pytest.raises(BrokerUnavailable):
        drain(outbox)
    assert outbox.backlog().waiting == 3
    Relay(outbox, outbox.announcer)._release()
    lease_of_the_killed(outbox)
    drain(outbox)
    assert published.data() == ["1", "2", "3"]


def lease_of_the_killed(outbox: Outbox) -> None:
    """Lets the lease of a relay expire, by the clock of the database."""
    with outbox.engine.begin() as connection:
        connection.execute(update(outbox.relays).values(until=1.0))


def test_one_relay_works_and_another_takes_over(outbox: Outbox, published: Published) -> None:
    first, second = Relay(outbox, outbox.announcer), Relay(outbox, outbox.announcer)
    commit(outbox, "1")
    first.run_once()
    commit(outbox, "2")
    assert not second.run_once()
    assert published.data() == ["1"]
    lease_of_the_killed(outbox)
    second.run_once()
    assert published.data() == ["1", "2"]
    second.drain()  # gives the lease back
    commit(outbox, "3")
    Relay(outbox, outbox.announcer).drain()
    assert published.data() == ["1", "2", "3"]


def test_commits_wake_only_the_relay_that_works(
    outbox: Outbox, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "LEASE", 3600.0)
    with running(outbox) as made:
        eventually(lambda: made._waiter)
        with outbox.engine.begin() as connection:
            connection.execute(update(outbox.relays).values(owner="another"))

        def gives_up() -> bool:
            made._lease._until = 0.0  # as after a pause of this relay
            return made._waiter is None

        eventually(gives_up)
        lease_of_the_killed(outbox)
        eventually(lambda: made._waiter)


def test_a_relay_takes_over_when_another_one_ends(outbox: Outbox, published: Published) -> None:
    with running(outbox) as first:
        eventually(lambda: first._waiter)
        with running(outbox) as second:
            commit(outbox, "x")
            eventually(published.data)
            assert (first._waiter is None, second._waiter) == (False, None)
            first.close()
            eventually(lambda: second._waiter)  # the first relay has given its lease back


def test_a_relay_renews_its_lease_by_the_clock_of_the_database(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "LEASE", 3600.0)
    made = lease.Lease(outbox.relays)
    with outbox.engine.connect() as connection:
        assert made.take(connection)
        assert made.lasts()
        made._until = 0.0  # as after some seconds
        assert made.take(connection)
        other = lease.Lease(outbox.relays)
        assert not other.take(connection)
        made.release(connection)
        assert other.take(connection)
        assert not made.take(connection)


def test_a_clock_that_is_set_back_does_not_lock_relays_out(outbox: Outbox, published: Published) -> None:
    commit(outbox, "1")
    Relay(outbox, outbox.announcer).run_once()  # and is killed
    with outbox.engine.begin() as connection:
        connection.execute(update(outbox.relays).values(until=outbox.relays.c.until + 3600))
    commit(outbox, "2")
    Relay(outbox, outbox.announcer).run_once()
    assert published.data() == ["1", "2"]


#: Values that another program may have written.
WRONG_VALUES: list[dict[str, Any]] = [
    {"channels": "a channel!"},
    {"channels": ""},
    {"channels": "!sse"},
    {"body": b"id: 7\n\n"},
    {"body": b"event: sse.reset\ndata: x\n\n"},
    {"body": b"data: " + b"x" * 10_010 + b"\n\n"},
    {"excluded": "["},
    {"excluded": "[" * 100_000},
    {"excluded": '["\\ud800"]'},
    {"ttl": -5.0},
    {"ttl": 1e300},
    {"event_key": ""},
    {"event_key": "two words"},
]


def test_a_row_that_no_event_can_have_is_set_aside(
    outbox: Outbox, published: Published, caplog: pytest.LogCaptureFixture
) -> None:
    commit(outbox, *["x"] * len(WRONG_VALUES), "last")
    columns = outbox.events.c
    with outbox.engine.begin() as connection:
        ids = list(connection.execute(select(columns.id).order_by(columns.id)).scalars())
        for id, values in zip(ids, WRONG_VALUES, strict=False):
            connection.execute(update(outbox.events).where(columns.id == id).values(values))
    assert outbox.drain() == 1
    assert published.data() == ["last"]
    assert outbox.backlog()[1:] == (0, 0.0, len(WRONG_VALUES))
    errors = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert [f"row {id} of sse_push_outbox" in text for id, text in zip(ids, errors, strict=False)] == [
        True
    ] * len(WRONG_VALUES)


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_sqlite_may_have_values_of_any_type(outbox: Outbox, published: Published) -> None:
    commit(outbox, *"12345")
    wrong = ["body = 'data: text\n\n'", "body = 5", "ttl = 'soon'", "channels = x'ff'", "created = 'soon'"]
    with outbox.engine.begin() as connection:
        for id, values in enumerate(wrong, 1):
            connection.exec_driver_sql(f"UPDATE sse_push_outbox SET {values} WHERE id = {id}")
    assert outbox.drain() == 2
    assert published.data() == ["text", "5"]
    assert outbox.backlog().set_aside == 3


def test_an_event_of_the_largest_size_is_published(outbox: Outbox, published: Published) -> None:
    commit(outbox, "\n" * 10_000)
    assert outbox.drain() == 1


def test_an_event_that_the_broker_always_refuses_does_not_hold_up_others(
    outbox: Outbox, published: Published, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    publish = published.broker.publish

    def refuse(publications: Any, once: str | None = None) -> Any:
        if b"refused" in publications[0].body:
            raise BrokerUnavailable("Redis: the string is too long")
        return publish(publications, once)

    monkeypatch.setattr(published.broker, "publish", refuse)
    monkeypatch.setattr(relay, "PAUSE", 0.01)
    commit(outbox, "1", "refused", "2")
    with running(outbox):
        eventually(lambda: published.data() == ["1", "2"])
    assert outbox.backlog().set_aside == 1
    assert "the string is too long" in caplog.text


def test_the_relay_waits_for_a_broker_that_is_away(
    outbox: Outbox, published: Published, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(relay, "PAUSE", 0.01)
    probe = published.broker.probe

    def fail(inbox: str) -> Any:
        if published.broker.away:
            raise BrokerUnavailable("Redis: the test has taken the server away")
        return probe(inbox)

    monkeypatch.setattr(published.broker, "probe", fail)
    published.broker.away = 3 * relay.TRIES
    commit(outbox, "1", "2")
    with running(outbox):
        eventually(lambda: published.data() == ["1", "2"])
    said = [record.message for record in caplog.records if record.name == relay_log.__name__]
    assert [text.partition(":")[0] for text in said] == [
        "the relay of the outbox sse_push_outbox works",
        "the relay of the outbox sse_push_outbox cannot publish, and tries again",
        "the relay of the outbox sse_push_outbox publishes again",
    ]


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_an_idle_relay_whose_broker_is_away_says_so_once(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, relay_log.__name__)
    monkeypatch.setattr(relay, "PAUSE", 0.01)
    link, tries = outbox.announcer.broker.shards[0].link, []

    def refuse(inbox: str) -> Any:
        tries.append(inbox)
        if len(tries) < 5:
            raise BrokerUnavailable("Redis: the test has taken the server away")
        return link(inbox)

    monkeypatch.setattr(outbox.announcer.broker.shards[0], "link", refuse)
    with running(outbox):
        eventually(lambda: len(caplog.records) == 3)
    assert len(tries) == 5
    said = [record.message.partition(" sse_push_outbox ")[2] for record in caplog.records]
    assert [text.partition(":")[0] for text in said] == [
        "works",
        "cannot publish, and tries again",
        "publishes again",
    ]


def test_the_relay_survives_the_end_of_its_connections(
    postgresql_url: str,
    published: Published,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(relay, "PAUSE", 0.01)
    outbox = Outbox(create_engine(postgresql_url, pool_pre_ping=True), published.announcer, table="survivor")
    outbox.create_all()
    others = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
    with running(outbox) as made:
        eventually(lambda: made._waiter)
        with outbox.engine.connect() as connection:
            connection.execute(others)
        eventually(lambda: "cannot publish, and tries again" in caplog.text)
        commit(outbox, "x")
        eventually(published.data)
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    outbox.events.metadata.drop_all(outbox.engine)
    outbox.engine.dispose()


def test_the_relay_waits_for_its_tables(
    engine: Engine, published: Published, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(relay, "PAUSE", 0.01)
    outbox = Outbox(engine, published.announcer)
    with pytest.raises(ConfigError, match=r"call outbox\.create_all\(\)"):
        outbox.check()
    with running(outbox):
        eventually(lambda: "cannot publish" in caplog.text)
        outbox.create_all()
        commit(outbox, "x")
        eventually(published.data)
    outbox.check()


def test_rows_that_are_too_old_or_too_many_are_removed_with_an_error(
    engine: Engine, published: Published, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = Outbox(engine, published.announcer, max_age=1000.0, max_rows=3)
    outbox.create_all()
    published.broker.away = 1
    commit(outbox, "old", *"12345")
    columns = outbox.events.c
    with engine.begin() as connection:
        first = connection.execute(select(columns.id).order_by(columns.id)).scalars().first()
        connection.execute(
            update(outbox.events).where(columns.id == first).values(created=columns.created - 2000)
        )
    made = Relay(outbox, outbox.announcer)
    with engine.connect() as connection:
        made._remove_old(connection)
    assert "3 events of the outbox sse_push_outbox were removed unpublished" in caplog.text
    published.broker.away = 0
    drain(outbox)
    assert published.data() == ["3", "4", "5"]


# -- kinds of databases --------------------------------------------------------------------------------------


def test_the_outbox_of_flask_sqlalchemy_needs_only_db(engine: Engine) -> None:
    app, sse = Flask(__name__), SSEBlueprint("sse")
    url = engine.url.render_as_string(hide_password=False)
    app.config |= {"SQLALCHEMY_DATABASE_URI": url, "SSE_PUSH_BROKER_URL": "memory://"}
    db = SQLAlchemy()
    outbox = Outbox(db)
    db.init_app(app)
    with pytest.raises(RuntimeError, match="needs an app context"):
        _ = outbox.announcer
    sse.init_app(app)
    with app.app_context():
        db.create_all()
        outbox.check()
        outbox.publish(db.session, "x", channel="orders")
        db.session.commit()
        assert outbox.backlog().waiting == 1
        drain(outbox)
        history = sse.announcer.broker.history({"orders": 0}, "nobody")
        assert len(history.channels["orders"].entries) == 1
        db.session.remove()
        db.engine.dispose()


def test_several_blueprints_must_be_told_apart() -> None:
    app, first, second = Flask(__name__), SSEBlueprint("first"), SSEBlueprint("second")
    app.config["SSE_PUSH_BROKER_URL"] = "memory://"
    app.register_blueprint(first, url_prefix="/a")
    app.register_blueprint(second, url_prefix="/b")
    engine = create_engine("sqlite://")
    with app.app_context():
        with pytest.raises(RuntimeError, match="there are 2; or name the blueprint"):
            _ = Outbox(engine).announcer
        assert Outbox(engine, second, metadata=MetaData()).announcer is second.announcer


WRONG: dict[str, Callable[[], Any]] = {
    "a URL": lambda: "sqlite://",
    "an async engine": lambda: create_async_engine("sqlite+aiosqlite://"),
    "None": lambda: None,
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_database_is_refused(kind: str) -> None:
    with pytest.raises(TypeError, match="must be an Engine or Flask-SQLAlchemy's SQLAlchemy"):
        Outbox(WRONG[kind]())


def test_a_commit_without_the_table_fails(engine: Engine, published: Published) -> None:
    outbox = Outbox(engine, published.announcer)
    with Session(engine) as session:
        outbox.publish(session, "x")
        with pytest.raises(DBAPIError, match="sse_push_outbox"):
            session.commit()
        outbox.create_all()
        if engine.dialect.name != "postgresql":  # PostgreSQL demands a rollback after an error
            session.commit()
    drain(outbox)
    assert published.data() == ([] if engine.dialect.name == "postgresql" else ["x"])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"push": "x"}, "push is a str, must be the blueprint or a MessageAnnouncer"),
        ({"max_age": "a"}, "max_age is a str, must be a number"),
        ({"max_rows": True}, "max_rows is a bool, must be a number"),
        ({"max_age": -1}, "max_age is -1, must be above 0"),
        ({"max_rows": 0}, "max_rows is 0, must be above 0"),
    ],
)
def test_wrong_arguments_are_refused_when_the_outbox_is_made(wrong: dict[str, Any], message: str) -> None:
    engine = create_engine("sqlite://")
    with pytest.raises((TypeError, ValueError), match=f"^{message}$"):
        Outbox(engine, **wrong)
    engine.dispose()


def test_a_drain_says_how_many_events_it_has_published(outbox: Outbox) -> None:
    commit(outbox, "1", "2")
    assert outbox.drain() == 2
    assert outbox.drain() == 0


def test_a_drain_waits_until_the_relay_that_works_has_published(
    outbox: Outbox, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(outbox) as made:
        eventually(lambda: made._waiter)
        commit(outbox, "1")
        own = outbox.drain()
        assert (published.data(), own) == (["1"], 0)
        monkeypatch.setattr(relay, "DRAIN_TIME", 0.3)
        monkeypatch.setattr(made, "run_once", lambda: False)  # as if it hung
        commit(outbox, "2")
        with pytest.raises(TimeoutError, match="another relay works, and has not published"):
            outbox.drain()


def test_each_relay_tells_once_whether_it_works(outbox: Outbox) -> None:
    told: list[list[str]] = [[], []]
    relays = [Relay(outbox, outbox.announcer, tell=each.append) for each in told]
    threads = [threading.Thread(target=each.run) for each in relays]
    for number, thread in enumerate(threads):
        thread.start()
        eventually(lambda number=number: told[number])  # type: ignore[misc]
    relays[0].close()
    eventually(lambda: len(told[1]) == 2)
    relays[1].close()
    for thread in threads:
        thread.join(60)
    works = "the relay of the outbox sse_push_outbox works"
    assert told[0] == [works]
    assert told[1] == [
        "another relay of the outbox sse_push_outbox works; this one waits to take over",
        works,
    ]


def test_a_drain_that_fails_gives_the_lease_back(outbox: Outbox, published: Published) -> None:
    commit(outbox, "a")
    failing = Relay(outbox, published.announcer)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(failing, "run_once", lambda: failing._has_lease() and 1 / 0)
        with pytest.raises(ZeroDivisionError):
            failing.drain()
    drain(outbox)
    assert published.data() == ["a"]
