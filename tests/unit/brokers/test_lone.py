"""A process that only publishes over `memory://` is warned once; a process that serves streams is not."""

from __future__ import annotations

import logging
import sys

import pytest

from flask_sse_push import MessageAnnouncer
from flask_sse_push.brokers.lone import LoneBroker, serves_no_streams
from flask_sse_push.brokers.url import connect_broker
from flask_sse_push.config import Settings

TEXT = "an event was published, but no stream gets it"


@pytest.fixture(autouse=True)
def _new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LoneBroker, "_warned", False)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]


def test_an_announcer_without_an_app_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        announcer = MessageAnnouncer.from_url("memory://")
        announcer.publish("one")
        announcer.publish("two")
    (text,) = told(caplog)
    assert text.startswith(TEXT)
    assert "SSE_PUSH_BROKER_URL=redis://" in text


def test_a_process_that_has_listened_is_not_warned(caplog: pytest.LogCaptureFixture) -> None:
    broker = connect_broker(Settings())
    broker.shards[0].link("inbox")
    MessageAnnouncer(broker, Settings()).publish("one")
    assert told(caplog) == []


@pytest.mark.parametrize(
    ("line", "is_lone"),
    [
        ("/app/.venv/bin/celery -A app worker", True),
        ("/lib/celery/__main__.py -A app worker", True),
        ("/bin/flask --app app shell", True),
        ("/lib/flask/__main__.py send-mails", True),
        ("rq worker", True),
        ("/bin/flask --app app run --port 80", False),
        ("/lib/flask/__main__.py run", False),
        ("/bin/gunicorn app:app", False),
        ("pytest", False),
        ("app.py", False),
        ("-c", False),
    ],
)
def test_an_apps_own_broker_warns_where_the_process_serves_no_streams(
    line: str, is_lone: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert serves_no_streams(line.split()) is is_lone
    monkeypatch.setattr(sys, "argv", line.split())
    MessageAnnouncer(connect_broker(Settings(), "/srv/app"), Settings()).publish("one")
    assert [text.startswith(TEXT) for text in told(caplog)] == [True] * is_lone
