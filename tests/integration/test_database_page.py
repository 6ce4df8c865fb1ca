"""Runs the code of docs/database.md, and compares its SQL with the tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import MetaData, create_engine
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.orm import Session
from sqlalchemy.schema import CreateTable

import flask_sse_push
from flask_sse_push import SSEBlueprint
from flask_sse_push.outbox.tables import make_tables
from flask_sse_push.testing import SSEClient
from tests.support.pages import block, blocks
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


def test_the_view_publishes_after_its_commit(names: dict[str, Any]) -> None:
    exec(block(PAGE, "python", "after_commit(db.session)"), names)
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
