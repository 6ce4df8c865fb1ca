"""The log: each record has its facts as attributes, and no record holds a secret."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flask_sse_push import ConfigError
from flask_sse_push.brokers.url import connect_broker
from flask_sse_push.config import Settings
from flask_sse_push.history.link import LinkReader
from flask_sse_push.hub.counters import CounterKey, Gauges
from flask_sse_push.monitoring import log
from tests.support.deadline import eventually
from tests.support.servers import Server

from .conftest import MakeApp


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """Gives the package's logger; restores its handlers and level afterwards."""
    logger = logging.getLogger("flask_sse_push")
    before = logger.handlers[:], logger.propagate, logger.level
    yield logger
    logger.handlers[:], logger.propagate = before[0], before[1]
    logger.setLevel(before[2])


def facts(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    return [record.__dict__ for record in caplog.records if getattr(record, "event", "") == event]


def test_a_stream_is_logged_when_it_opens_and_closes(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "flask_sse_push")
    app, _ = make_app()
    response = app.test_client().get("/stream?secret=hidden", headers={"Cookie": "session=hidden"})
    frames = response.iter_encoded()
    while b"sse.open" not in next(frames):
        pass
    response.close()
    [opened], [closed] = facts(caplog, "stream_opened"), facts(caplog, "stream_closed")
    assert opened["channels"] == ["sse"]
    assert opened["address"] == "127.0.0.1"
    assert closed["connection"] == opened["connection"]
    assert (closed["reason"], closed["user_id"]) == ("client", None)
    assert 0 <= closed["duration"] < 60
    assert closed["bytes"] > 0
    assert "hidden" not in caplog.text


def test_a_refusal_is_logged_with_its_code_and_cannot_forge_a_line(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "flask_sse_push")
    app, _ = make_app()
    app.test_client().get("/stream?channels=a%0Aforged&token=hidden")
    [refusal] = facts(caplog, "refused")
    assert (refusal["code"], refusal["status"], refusal["path"]) == (1301, 400, "/stream")
    assert "\n" not in refusal["message"]
    assert "hidden" not in caplog.text


def test_an_address_that_a_proxy_passes_on_controls_no_terminal(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "flask_sse_push")
    app, _ = make_app()
    client, behind_proxy = app.test_client(), {"REMOTE_ADDR": "\x1b[31mred"}
    client.get("/stream?channels=closed", environ_overrides=behind_proxy)
    with client.get("/stream", environ_overrides=behind_proxy) as response:
        next(response.iter_encoded())
    [refusal], [opened] = facts(caplog, "refused"), facts(caplog, "stream_opened")
    assert refusal["address"] == opened["address"] == "\\x1b[31mred"


def test_names_and_paths_in_the_log_control_no_terminal_and_stay_readable(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "flask_sse_push")
    app, sse = make_app()
    sse.identify(lambda request: "Jürgen\x1b[2J\u202e")
    app.test_client().post("/stream/%1B%5B2J%C2%9B%E6%9D%B1%E4%BA%AC/channels", json={"join": ["a"]})
    [refusal] = facts(caplog, "refused")
    assert refusal["path"] == "/stream/\\x1b[2J\\x9b東京/channels"
    response = app.test_client().get("/stream")
    next(response.iter_encoded())
    response.close()
    [opened] = facts(caplog, "stream_opened")
    assert opened["user_id"] == "Jürgen\\x1b[2J\\u202e"


def test_nothing_is_logged_below_its_level(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "flask_sse_push")
    app, _ = make_app()
    response = app.test_client().get("/stream")
    next(response.iter_encoded())
    response.close()
    assert not [record for record in caplog.records if record.name.startswith("flask_sse_push")]


def test_totals_hold_the_counts_since_the_last_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "flask_sse_push")
    counts = {CounterKey("opened"): 2, CounterKey("closed", "client"): 1}
    totals = log.TotalsLog(lambda: dict(counts), lambda: Gauges(streams=1), every=0.0)
    totals.write_if_due()
    totals.write_if_due()
    counts[CounterKey("opened")] = 5
    totals.write_if_due()
    first, second = facts(caplog, "totals")
    assert (first["since"], first["streams"]) == ({"opened": 2, "closed.client": 1}, 1)
    assert second["since"] == {"opened": 3, "closed.client": 0}


def test_totals_are_not_logged_before_their_time(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "flask_sse_push")
    log.TotalsLog(lambda: {CounterKey("opened"): 1}, Gauges, every=60.0).write_if_due()
    assert not facts(caplog, "totals")


def test_a_json_record_has_its_facts_on_one_line(root: logging.Logger) -> None:
    settings = Settings.load({"SSE_PUSH_LOG_JSON": "1"}, {})
    log.set_up(settings)
    log.set_up(settings)
    [handler] = [each for each in root.handlers if isinstance(each, log._JsonHandler)]
    handler.setStream(io.StringIO())
    log.logger.info("a\nb", extra={"event": "totals", "streams": 3})
    [line] = handler.stream.getvalue().splitlines()
    found = json.loads(line)
    assert (found["message"], found["event"], found["streams"]) == ("a\nb", "totals", 3)
    assert (found["level"], found["logger"]) == ("INFO", "flask_sse_push.monitoring.log")
    assert found["time"]


def test_without_the_switch_no_handler_is_made(root: logging.Logger) -> None:
    log.set_up(Settings())
    assert not [each for each in root.handlers if isinstance(each, log._JsonHandler)]


def test_without_the_library_the_setting_is_refused(
    root: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pythonjsonlogger.json", None)
    with pytest.raises(ConfigError, match=r"flask-sse-push\[logs\]"):
        log.set_up(Settings(log_json=True))


def test_a_broker_that_was_away_is_logged_with_the_seconds(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "flask_sse_push")
    server = Server(tmp_path).start()
    broker = connect_broker(Settings(broker_url=server.url, publish_timeout=1.0))
    reader = LinkReader(broker, "log", lambda signals: None, silence=10.0)
    thread = threading.Thread(target=reader.run)
    thread.start()
    try:
        eventually(lambda: reader.connected)
        assert not facts(caplog, "broker_up")
        server.kill()
        eventually(lambda: facts(caplog, "broker_down"))
        server.start()
        [up] = eventually(lambda: facts(caplog, "broker_up"))
        assert 0 < up["seconds"] < 60
        assert up["levelno"] == logging.WARNING
    finally:
        reader.close()
        thread.join(60)
        broker.close()
        server.close()
