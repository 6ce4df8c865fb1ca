"""`flask sse doctor` on wrong files and settings: gunicorn.conf.py, the limit of open files, the transport.

`test_doctor_redis.py` and `test_doctor_web.py` try all set-ups of docs/doctor.md.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.doctor import Checkup, examine
from tests.support.processes import ROOT

#: A gunicorn.conf.py with which all checks pass.
GOOD = """
from gevent import monkey
monkey.patch_all()
worker_class = "gevent"
workers = 2
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the doctor runs."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def diagnosis(project: Path, broker: str, configuration: str = GOOD, **settings: str) -> Checkup:
    """Runs the doctor with a gunicorn.conf.py."""
    (project / "gunicorn.conf.py").write_text(configuration)
    return examine(config={"SSE_PUSH_BROKER_URL": broker, **settings})


def test_with_a_good_file_all_checks_pass(project: Path, valkey_url: str) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, limits[1]))
    try:
        checkup = diagnosis(project, valkey_url)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert (checkup.code, checkup.of_level("broken")) == (0, {})
    assert set(checkup.of_level("ok")) >= {
        "worker class", "monkey patching", "taking over sockets", "worker_connections", "graceful timeout",
        "version", "eviction", "pub/sub buffer", "clock", "open files",
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
    project: Path, valkey_url: str, configuration: str, name: str, says: str
) -> None:
    checkup = diagnosis(project, valkey_url, configuration)
    assert (checkup.code, list(checkup.of_level("broken"))) == (1, [name])
    assert says in checkup.of_level("broken")[name]


def test_a_memory_broker_for_several_workers_is_found(project: Path) -> None:
    checkup = diagnosis(project, "memory://")
    assert (checkup.code, list(checkup.of_level("broken"))) == (1, ["broker"])
    assert "2 workers" in checkup.of_level("broken")["broker"]


def test_a_transport_that_the_server_cannot_use_is_found(project: Path, valkey_url: str) -> None:
    threads = 'worker_class = "gthread"\nthreads = 8'
    checkup = diagnosis(project, valkey_url, threads, SSE_PUSH_TRANSPORT="hijack")
    assert (checkup.code, list(checkup.of_level("broken"))) == (1, ["taking over sockets"])
    assert "at most 7 streams" in checkup.of_level("warning")["worker class"]


def test_a_process_of_its_own_reports_causes_and_remedies(project: Path, valkey_url: str) -> None:
    """As an operator does, with a low limit of open files, a wrong file, and settings in the environment."""
    (project / "gunicorn.conf.py").write_text('worker_class = "sync"')
    env = {
        "SSE_PUSH_BROKER_URL": valkey_url, "PYTHONPATH": str(ROOT), "FLASK_SESSION_COOKIE_SAMESITE": "None",
        "SSE_PUSH_CORS_ORIGINS": "https://app.example.com",
    }  # fmt: skip
    command = [sys.executable, "-m", "flask", "--app", "tests.apps.plain", "sse", "doctor"]
    done = subprocess.run(
        ["sh", "-c", 'ulimit -n 200; exec "$@"', "sh", *command],
        cwd=project, env={**os.environ, **env}, capture_output=True, text=True, timeout=180,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "")
    advice = done.stdout.partition("broken   worker class: gunicorn's worker class is sync")[2]
    assert advice.lstrip().startswith("why: ")
    assert "do:  run gunicorn with -k gevent" in advice
    assert "broken   open files: a worker may open 200 files" in done.stdout
    assert any("cookies of foreign pages" in line.split(":")[0] for line in done.stdout.splitlines())
