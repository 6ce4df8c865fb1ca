"""`flask sse doctor` run as an operator does, in a process of its own, on some broken set-ups.

`test_doctor_redis.py` and `test_doctor_web.py` try all set-ups of docs/doctor.md in the process of the test.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import ROOT, free_port

from .conftest import Serve

#: A gunicorn.conf.py with which all checks pass.
GOOD = """
from gevent import monkey
monkey.patch_all()
worker_class = "gevent"
workers = 2
"""


class Checked:
    """The exit code and the findings of the doctor."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        assert done.returncode in (0, 1), done.stderr
        self.code = done.returncode
        self.findings: list[dict[str, str]] = [json.loads(line) for line in done.stdout.splitlines()]

    @property
    def broken(self) -> dict[str, str]:
        """The findings of level `broken`: their texts, by name."""
        return self._of_level("broken")

    @property
    def warned(self) -> dict[str, str]:
        """The findings of level `warning`: their texts, by name."""
        return self._of_level("warning")

    def _of_level(self, level: str) -> dict[str, str]:
        return {found["name"]: found["what"] for found in self.findings if found["level"] == level}


class Doctor:
    """Runs `flask sse doctor` in a folder with a gunicorn.conf.py, as an operator does."""

    def __init__(self, folder: Path, broker: str) -> None:
        self._folder = folder
        self.env = {"SSE_PUSH_BROKER_URL": broker, "SECRET_KEY": "x", "PYTHONPATH": str(ROOT)}
        self.configure(GOOD)

    def configure(self, text: str) -> None:
        (self._folder / "gunicorn.conf.py").write_text(text)

    def run(self, *options: str, files: int = 4096) -> Checked:
        command = [sys.executable, "-m", "flask", "--app", "tests.apps.plain", "sse", "doctor", "--json"]
        limited = ["sh", "-c", f'ulimit -n {files}; exec "$@"', "sh", *command, *options]
        env = {**os.environ, **self.env}
        done = subprocess.run(limited, cwd=self._folder, env=env, capture_output=True, text=True, timeout=180)
        return Checked(done)


@pytest.fixture
def doctor(tmp_path: Path, empty_valkey: str) -> Doctor:
    """A doctor in a set-up without faults. The test then breaks it."""
    return Doctor(tmp_path, empty_valkey)


def test_a_good_set_up_passes_all_checks(doctor: Doctor, serve: Serve) -> None:
    server = serve()
    checked = doctor.run("--url", f"{server.url}/stream?channels=a")
    assert checked.broken == {}
    assert checked.code == 0
    names = {found["name"] for found in checked.findings if found["level"] == "ok"}
    assert names >= {
        "worker class", "monkey patching", "taking over sockets", "worker_connections", "open files",
        "graceful timeout", "version", "eviction", "pub/sub buffer", "clock", "compression",
        "buffering", "resuming",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("configuration", "name", "says"),
    [
        ('worker_class = "sync"', "worker class", "sync"),
        (
            'import redis\nfrom gevent import monkey\nmonkey.patch_all()\nworker_class = "gevent"',
            "monkey patching",
            "imports redis before",
        ),
        ('worker_class = "gevent"\npreload_app = True', "monkey patching", "nothing calls monkey"),
        (GOOD + "graceful_timeout = 1", "graceful timeout", "is 1 seconds"),
        (GOOD + 'http_protocols = "h2,h1"\nhttp2_cleartext = "both"', "HTTP/2", "speaks HTTP/2"),
        (GOOD + "workers = many", "gunicorn", "many"),
    ],
)
def test_a_wrong_gunicorn_configuration_is_found(
    doctor: Doctor, configuration: str, name: str, says: str
) -> None:
    doctor.configure(configuration)
    checked = doctor.run()
    assert checked.code == 1
    assert list(checked.broken) == [name]
    assert says in checked.broken[name]


def test_a_low_limit_of_open_files_is_found(doctor: Doctor) -> None:
    checked = doctor.run(files=200)
    assert (checked.code, list(checked.broken)) == (1, ["open files"])
    assert "200" in checked.broken["open files"]


def test_a_memory_broker_for_several_workers_is_found(doctor: Doctor) -> None:
    doctor.env["SSE_PUSH_BROKER_URL"] = "memory://"
    checked = doctor.run()
    assert (checked.code, list(checked.broken)) == (1, ["broker"])
    assert "2 workers" in checked.broken["broker"]


def test_a_transport_that_the_server_cannot_use_is_found(doctor: Doctor) -> None:
    doctor.configure('worker_class = "gthread"\nthreads = 8')
    doctor.env["SSE_PUSH_TRANSPORT"] = "hijack"
    checked = doctor.run()
    assert (checked.code, list(checked.broken)) == (1, ["taking over sockets"])
    assert "at most 7 streams" in checked.warned["worker class"]


def test_a_broker_that_does_not_answer_is_found(doctor: Doctor) -> None:
    doctor.env["SSE_PUSH_BROKER_URL"] = f"redis://:topsecret@127.0.0.1:{free_port()}/0"
    checked = doctor.run()
    assert (checked.code, list(checked.broken)) == (1, ["broker"])
    assert "does not answer" in checked.broken["broker"]
    assert "topsecret" not in str(checked.findings)


# -- between client and app ---------------------------------------------------------------------------


class Proxy(BaseHTTPRequestHandler):
    """A server in front of an app that spoils its streams. `behaviour` says how."""

    behaviour = ""

    def do_GET(self) -> None:
        if self.behaviour == "compressing":
            self._answer("text/event-stream", b"\x1f\x8b", ("Content-Encoding", "gzip"))
        elif self.behaviour == "buffering":
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            self.wfile.flush()
            self.server.stopping.wait(30)  # type: ignore[attr-defined]
        elif self.behaviour == "forgetful":
            data = json.dumps({"connection": "a", "channels": [], "resumed": False, "heartbeat": 15})
            self._answer("text/event-stream", f"id: e-1\nevent: sse.open\ndata: {data}\n\n".encode())

    def _answer(self, kind: str, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Logs nothing."""


@pytest.fixture
def proxy() -> Iterator[ThreadingHTTPServer]:
    """Runs a `Proxy` on a free port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    server.stopping = threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.stopping.set()  # type: ignore[attr-defined]
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("behaviour", "name", "says"),
    [
        ("compressing", "compression", "gzip"),
        ("buffering", "buffering", "did not arrive"),
        ("forgetful", "resuming", "not resumed"),
    ],
)
def test_a_proxy_that_spoils_streams_is_found(
    doctor: Doctor,
    proxy: ThreadingHTTPServer,
    monkeypatch: pytest.MonkeyPatch,
    behaviour: str,
    name: str,
    says: str,
) -> None:
    monkeypatch.setattr(Proxy, "behaviour", behaviour)
    checked = doctor.run("--url", f"http://127.0.0.1:{proxy.server_port}/stream")
    assert checked.code == 1
    assert name in checked.broken
    assert set(checked.broken) <= {name, "buffering"}
    assert says in checked.broken[name]


def test_cookies_that_browsers_reject_are_found(doctor: Doctor) -> None:
    doctor.env |= {
        "SSE_PUSH_CORS_ORIGINS": "https://app.example.com",
        "FLASK_SESSION_COOKIE_SAMESITE": "None",
    }
    checked = doctor.run()
    assert "cookies of foreign pages" in {**checked.warned, **checked.broken}


def test_without_json_the_report_says_cause_and_remedy(doctor: Doctor, tmp_path: Path) -> None:
    doctor.configure('worker_class = "sync"')
    command = [sys.executable, "-m", "flask", "--app", "tests.apps.plain"]
    done = subprocess.run(
        [*command, "sse", "doctor"], cwd=tmp_path, env={**os.environ, **doctor.env}, capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    advice = done.stdout.partition("broken   worker class: gunicorn's worker class is sync")[2]
    assert advice.lstrip().startswith("why: ")
    assert "do:  run gunicorn with -k gevent" in advice
