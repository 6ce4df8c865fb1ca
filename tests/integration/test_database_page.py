"""Runs the code of docs/database.md, and compares its SQL with the tables."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import MetaData, create_engine
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sqlalchemy.schema import CreateTable

import flask_sse_push
from flask_sse_push import BrokerUnavailable, SSEBlueprint
from flask_sse_push.outbox.relay import Relay
from flask_sse_push.outbox.tables import make_tables
from flask_sse_push.testing import SSEClient
from tests.support.pages import block, blocks, commands
from tests.support.processes import ROOT
from tests.support.published import Published, data_of

PAGE = "docs/database.md"


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What the code of the page defines, in an app with its tables."""
    sse = SSEBlueprint("sse")
    monkeypatch.setattr(flask_sse_push, "sse", sse)
    app = Flask(__name__)
    app.config |= {
        "SQLALCHEMY_DATABASE_URI": f"sqlite:///{tmp_path}/shop.db",
        "SSE_PUSH_BROKER_URL": "memory://",
        "SSE_PUSH_PUBLIC_CHANNELS": "orders",
    }
    names: dict[str, Any] = {"app": app, "sse": sse}
    exec(block(PAGE, "python", "Outbox(db)"), names)
    db = names["db"]

    class Order(db.Model):  # type: ignore[name-defined,misc]
        id = db.Column(db.Integer, primary_key=True)
        user_id = db.Column(db.Integer)
        paid = db.Column(db.Boolean)
        shipped = db.Column(db.Boolean)
        billed = db.Column(db.Boolean)

    names["Order"] = Order
    names["init"](app)
    with app.app_context():
        db.session.add(Order(id=7, user_id=3))
        db.session.commit()
    yield names
    with app.app_context():
        db.engine.dispose()


def published(names: dict[str, Any], channel: str) -> list[str]:
    broker = names["sse"].announcer.broker
    entries = broker.history({channel: 0}, "nobody").channels[channel].entries
    return [data_of(entry.frame.partition(b"\n")[2]) for entry in entries]


def test_an_event_before_the_commit_may_tell_what_never_happened(names: dict[str, Any]) -> None:
    with names["app"].app_context():
        names["db"].session.add(names["Order"](id=7))  # this id is taken
        with pytest.raises(IntegrityError):
            exec(block(PAGE, "python", "raises IntegrityError"), names)
        assert published(names, "orders") == ['{"order": 7}']


def test_an_event_after_the_commit_may_get_lost(
    names: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    code = block(PAGE, "python", "The process is killed here")
    with names["app"].app_context():
        names["db"].session.add(names["Order"](id=8))
        exec(code, names)
        assert published(names, "orders") == ['{"order": 7}']
        killed = code.replace("# The process is killed here", "raise SystemExit  #")
        names["db"].session.add(names["Order"](id=9))
        with pytest.raises(SystemExit):
            exec(killed, names)
        names["db"].session.rollback()
        assert names["db"].session.get(names["Order"], 9)
        assert published(names, "orders") == ['{"order": 7}']


def test_the_log_names_the_events_that_were_not_published(
    names: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with names["app"].app_context():
        transaction = names["sse"].after_commit(names["db"].session)
        transaction.publish({"order": 7}, "paid", channel="orders")
        transaction.send_to_user(7, "Thank you!")

        def publish(*_: object) -> None:
            raise BrokerUnavailable("Redis: …")

        monkeypatch.setattr(names["sse"].announcer.broker, "publish", publish)
        names["db"].session.commit()
    assert f"```text\n  {caplog.messages[-1]}\n" in (ROOT / PAGE).read_text("utf-8")


def test_the_relay_says_what_the_page_shows(
    names: dict[str, Any], empty_valkey: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names["app"].config["SSE_PUSH_BROKER_URL"] = empty_valkey
    names["app"].extensions["sse_push"].clear()  # the app may set its broker again
    turns = iter([False])
    monkeypatch.setattr(Relay, "_ends", lambda relay: next(turns, True))
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # pytest keeps its handlers
    (command,) = [each for each in commands(PAGE) if " sse relay" in each.text]
    words = command.text.removeprefix("flask --app yourapp ").split()
    result = names["app"].test_cli_runner().invoke(args=words)
    shown = "\n".join(command.output).replace(
        "postgresql+psycopg://shop:***@db/shop", names["app"].config["SQLALCHEMY_DATABASE_URI"]
    )
    assert (result.exit_code, result.output) == (0, f"{shown}\n")


def test_each_block_of_code_on_the_page_is_tested() -> None:
    files = Path(__file__), ROOT / "tests/browser/test_database.py"
    tested = "".join(file.read_text("utf-8") for file in files)
    marks = re.findall(r'block\(PAGE, "python", "([^"]+)"\)', tested)
    assert [[mark in code for mark in marks].count(True) for code in blocks(PAGE, "python")] == [1] * len(
        marks
    )
    kinds = re.findall(r"```(\w+)$", (ROOT / PAGE).read_text("utf-8"), re.MULTILINE)
    assert set(kinds) == {"python", "console", "text", "sql"}  # the tests above have all blocks of the others


def test_the_view_publishes_after_its_commit(names: dict[str, Any]) -> None:
    exec(block(PAGE, "python", "Thank you!"), names)
    names["app"].test_client().post("/orders/7/pay")
    with names["app"].app_context():
        assert published(names, "orders") == ['{"order": 7}']
        assert published(names, "user:3") == ["Thank you!"]


def test_the_outbox_publishes_through_a_relay(names: dict[str, Any]) -> None:
    with names["app"].app_context():
        names["ship"](names["db"].session.get(names["Order"], 7))
        names["outbox"].drain()
        assert published(names, "orders") == ['{"order": 7}']


def test_an_app_can_test_its_outbox(names: dict[str, Any]) -> None:
    exec(block(PAGE, "python", "sse_client.open"), names)
    names["test_a_shipped_order_is_announced"](names["app"], SSEClient(names["app"]))


def test_the_task_of_celery_publishes(names: dict[str, Any]) -> None:
    class celery:
        task = staticmethod(lambda **options: lambda function: function)

    names["celery"] = celery
    exec(block(PAGE, "python", "@celery.task"), names)
    names["bill"](7)
    with names["app"].app_context():
        assert names["outbox"].backlog().waiting == 1


def test_a_script_needs_no_app(monkeypatch: pytest.MonkeyPatch) -> None:
    announced = Published()
    monkeypatch.setattr(flask_sse_push.MessageAnnouncer, "from_url", lambda url: announced.announcer)
    engine = create_engine("sqlite://")
    with Session(engine) as session:
        exec(block(PAGE, "python", "after_commit(session, announcer)"), {"session": session})
    engine.dispose()
    assert announced.data("imports") == ['{"done": true}']


def test_the_sql_of_the_page_creates_the_tables() -> None:
    tables = make_tables(MetaData(), "sse_push_outbox")
    for dialect, sql in zip((postgresql, mysql, sqlite), blocks(PAGE, "sql"), strict=True):
        made = [str(CreateTable(table).compile(dialect=dialect.dialect())) for table in tables]
        written = re.sub("^--.*", "", sql).split(";")[:2]
        assert [text.split() for text in written] == [text.split() for text in made]
