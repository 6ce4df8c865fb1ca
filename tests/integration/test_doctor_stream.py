"""What the doctor says about the stream of a running app. Both run in the process of the test."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import cycle
from typing import Any

import pytest
from flask import Flask
from werkzeug.serving import make_server

from flask_sse_push import SSEBlueprint
from tests.support.doctor import Finding, examine
from tests.support.doctor_cases import APP
from tests.support.processes import free_port


@contextmanager
def serving(*brokers: str) -> Iterator[str]:
    """Serves an app with several workers, each on a broker; yields a stream's URL.

    The workers answer in turn. They have no SECRET_KEY.
    """
    with ExitStack() as held:
        workers = []
        for broker in brokers:
            app, sse = Flask("served"), SSEBlueprint("sse", __name__)
            app.config.update(
                SSE_PUSH_BROKER_URL=broker, SSE_PUSH_PUBLIC_CHANNELS="a", SSE_PUSH_HEARTBEAT="0.2"
            )
            app.register_blueprint(sse, url_prefix="/stream")
            with app.app_context():
                held.callback(sse.services.close)
            workers.append(app)
        turns = cycle(workers)

        def one(environ: Any, start_response: Any) -> Any:
            return next(turns)(environ, start_response)

        server = make_server("127.0.0.1", 0, one, threaded=True)
        server.daemon_threads = True  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        held.callback(server.server_close)
        held.callback(server.shutdown)
        yield f"http://127.0.0.1:{server.server_port}/stream?channels=a"


def faults(url: str) -> list[Finding]:
    """What is wrong in the eyes of a doctor on `memory://` without a SECRET_KEY, besides the missing key."""
    found = examine("--url", url, config={"SECRET_KEY": None}).findings
    assert "gunicorn" not in {each.name for each in found}
    assert [each.level for each in found if each.name == "secret key"] == ["warning"]
    return [each for each in found if each.level != "ok" and each.name != "secret key"]


@pytest.fixture(autouse=True)
def empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GUNICORN_CMD_ARGS", raising=False)


def test_an_app_without_a_secret_key_has_no_finding_about_another_key() -> None:
    with serving("memory://") as url:
        assert faults(url) == []


def test_an_app_without_its_broker_is_one_finding_and_no_proxy_is_blamed() -> None:
    with serving(f"redis://127.0.0.1:{free_port()}/0") as url:
        [fault] = faults(url)
    assert f"{fault.level} {fault.name}" == APP["app-without-broker"].found
    assert "sse.error 1203: the broker does not answer" in fault.what
    assert APP["app-without-broker"].remedy in fault.advice
    assert "buffer" not in " ".join(fault)


def test_a_broker_that_is_gone_at_the_second_stream_is_no_limit_of_streams() -> None:
    with serving("memory://", f"redis://127.0.0.1:{free_port()}/0") as url:
        [fault] = faults(url)
    assert (fault.level, fault.name) == ("broken", "stream")
    assert "sse.error 1203" in fault.what


def test_several_workers_on_memory_are_the_likely_cause_of_a_stream_that_does_not_resume() -> None:
    with serving("memory://", "memory://") as url:
        [fault] = faults(url)
    assert f"{fault.level} {fault.name}" == APP["memory-does-not-resume"].found
    assert APP["memory-does-not-resume"].remedy in fault.advice
    assert "SSE_PUSH_BROKER_URL is memory://" in fault.what
    assert "embedded://" in fault.advice
    assert "Last-Event-ID" not in fault.advice
