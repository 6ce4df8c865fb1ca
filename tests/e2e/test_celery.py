"""The example of docs/publishing.md: a real Celery worker, in its own processes, publishes to streams."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.pages import block, commands
from tests.support.stream import Stream

from .conftest import Serve

PAGE = "docs/publishing.md"


@pytest.fixture
def env(empty_valkey: str) -> dict[str, str]:
    """The environment: Celery's tasks are in one database, events in another."""
    tasks = empty_valkey.removesuffix("/0") + "/1"
    return {**os.environ, "SSE_PUSH_BROKER_URL": empty_valkey, "CELERY_BROKER_URL": tasks}


@pytest.fixture
def celery(env: dict[str, str], log: Path) -> Iterator[list[str]]:
    """Runs a worker with the tasks of the page; yields the command that controls it."""
    (log.parent / "tasks.py").write_text(block(PAGE, "python", "Celery("))
    assert "celery -A tasks worker" in [command.text for command in commands(PAGE)]
    command = [sys.executable, "-m", "celery", "-A", "tasks"]
    options = ["worker", "--concurrency", "2", "--without-gossip", "--without-mingle", "--loglevel", "info"]
    with log.with_name("celery.log").open("wb") as output:
        process = subprocess.Popen(
            [*command, *options], cwd=log.parent, env=env, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            yield command
        finally:
            process.terminate()
            process.wait(60)


def test_a_task_publishes_its_progress(
    serve: Serve, celery: list[str], env: dict[str, str], log: Path
) -> None:
    server = serve()
    with Stream(f"{server.url}/stream?channels=order:7", timeout=60) as stream:
        stream.next_of("sse.open")
        call = [*celery, "call", "tasks.export", "--args", "[7]"]
        subprocess.run(call, cwd=log.parent, env=env, check=True, capture_output=True, timeout=60)
        try:
            events = [stream.next_of("progress") for _ in range(3)]
        except (EOFError, TimeoutError) as error:
            raise AssertionError(log.with_name("celery.log").read_text()) from error
    assert [event.json() for event in events] == [{"done": 0}, {"done": 50}, {"done": 100}]
