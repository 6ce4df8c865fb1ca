"""What the app shows of its outbox: metrics, the findings of the doctor, errors of `flask sse relay`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import create_engine, update
from sqlalchemy.orm import Session

from flask_sse_push import SSEBlueprint
from flask_sse_push.cli.doctor.finding import Finding
from flask_sse_push.cli.doctor.outbox import examine_outboxes
from flask_sse_push.monitoring.backlog import backlogs
from flask_sse_push.outbox import Outbox
from tests.support.deadline import eventually


@pytest.fixture
def app() -> Flask:
    app, sse = Flask(__name__), SSEBlueprint("sse")
    app.config["SSE_PUSH_BROKER_URL"] = "memory://"
    sse.init_app(app)
    sse.authorize_admin(lambda user: True)
    app.extensions["sse"] = sse
    return app


@pytest.fixture
def outbox(app: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Outbox]:
    """The only outbox of this process. Its tables are there, and three events wait."""
    backlogs.clear()
    engine = create_engine(f"sqlite:///{tmp_path}/outbox.db")
    outbox = Outbox(engine, app.extensions["sse"])
    outbox.create_all()
    with app.app_context(), Session(engine) as session:
        outbox.publish_many(session, [{"data": n} for n in range(3)])
        session.commit()
    yield outbox
    engine.dispose()


def age(outbox: Outbox, seconds: float) -> None:
    with outbox.engine.begin() as connection:
        connection.execute(update(outbox.events).values(created=outbox.events.c.created - seconds))


def findings(app: Flask) -> list[Finding]:
    with app.app_context():
        return list(examine_outboxes())


def test_the_metrics_tell_the_backlog(app: Flask, outbox: Outbox) -> None:
    age(outbox, 600)
    text = app.test_client().get("/stream/metrics").text
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("sse_push_outbox"))
    assert lines["sse_push_outbox_events"] == "3.0"
    assert 600 <= float(lines["sse_push_outbox_age_seconds"]) < 6000


def test_metrics_do_not_need_the_database(
    app: Flask, outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    outbox.events.metadata.drop_all(outbox.engine)
    assert app.test_client().get("/stream/metrics").status_code == 200
    assert "the backlog of the outbox sse_push_outbox is not known" in caplog.text


def test_the_doctor_finds_events_for_which_no_relay_works(app: Flask, outbox: Outbox) -> None:
    assert [(each.level, each.what) for each in findings(app)] == [("ok", "3 events wait")]
    age(outbox, 600)
    (found,) = findings(app)
    assert (found.level, found.name) == ("broken", "outbox sse_push_outbox")
    assert found.what.startswith("3 events wait, the oldest for 60")
    assert "run `flask sse relay`, or pass relay=True" in found.advice
    with outbox.engine.begin() as connection:
        connection.execute(update(outbox.events).values(problem="ValueError: x"))
    assert [(each.level, each.what) for each in findings(app)] == [
        ("ok", "0 events wait"),
        ("warning", "3 events were set aside"),
    ]
    outbox.events.metadata.drop_all(outbox.engine)
    (found,) = findings(app)
    assert (found.level, "no such table" in found.what) == ("broken", True)
    assert "call outbox.create_all()" in found.advice


def relay(app: Flask, broker: str, *options: str) -> str:
    app.config["SSE_PUSH_BROKER_URL"] = broker
    result = app.test_cli_runner().invoke(args=["sse", "relay", *options])
    assert result.exit_code == 1
    return result.output


def test_the_relay_says_what_it_needs(app: Flask, outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    with app.app_context():
        app.extensions["sse_push"].clear()  # the app may set its broker again
    outbox.events.metadata.drop_all(outbox.engine)
    assert "call outbox.create_all(), or add the SQL of docs/database.md" in relay(
        app, "redis://127.0.0.1:1/0"
    )
    backlogs.clear()
    assert "the app has no outbox; make one where" in relay(app, "redis://127.0.0.1:1/0")


def test_a_relay_needs_a_broker_that_it_can_reach(app: Flask, outbox: Outbox) -> None:
    assert "memory://, which no other process can reach" in relay(app, "memory://")


@pytest.mark.parametrize("way", ["stream", "publish"])
def test_a_process_that_serves_requests_becomes_the_relay(
    app: Flask, outbox: Outbox, way: str, tmp_path: Path
) -> None:
    working = Outbox(outbox.engine, app.extensions["sse"], relay=True, metadata=outbox.events.metadata)
    sse = app.extensions["sse"]

    @app.post("/")
    def publish() -> str:
        with Session(outbox.engine) as session, session.begin():
            working.publish(session, "from a request")
        return ""

    with app.app_context(), Session(outbox.engine) as session, session.begin():
        working.publish(session, "not from a request")
    assert working._relay_pid == 0
    try:
        if way == "stream":
            stream = app.test_client().get("/stream")
            next(stream.iter_encoded())
            stream.close()
        else:
            app.test_client().post("/")
        eventually(lambda: outbox.backlog().waiting == 0)
    finally:
        working.close()
        eventually(lambda: not [each for each in threading.enumerate() if each.name.endswith("-outbox")])
        with app.app_context():
            sse.services.close()


def test_an_app_has_only_its_own_outboxes(app: Flask, outbox: Outbox) -> None:
    other, theirs = Flask("other"), SSEBlueprint("theirs")
    other.config["SSE_PUSH_BROKER_URL"] = "memory://"
    theirs.init_app(other)
    made = [
        Outbox(SQLAlchemy(), relay=True, table="of_no_app"),
        Outbox(outbox.engine, theirs, relay=True, table="of_the_other_app"),
    ]
    assert [each.name for each in findings(app)] == ["outbox sse_push_outbox"]
    stream = app.test_client().get("/stream")
    next(stream.iter_encoded())
    stream.close()
    assert [each._relay_pid for each in made] == [0, 0]
    with app.app_context():
        app.extensions["sse"].services.close()
