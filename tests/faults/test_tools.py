"""The command line while a dripping server tries to hold it, and events try to control the terminal."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

from tests.e2e.test_cli import flask
from tests.e2e.test_terminals import EVIL, REPLY, assert_harmless, publish_as_another_program
from tests.support.dripping import dripping

#: At most how many seconds a command takes, on a busy machine too. Its own limit is 2 seconds.
LIMIT = 60
COMMANDS = [("history", "a"), ("publish", "a", "x")]


def test_no_command_is_held_by_a_dripping_redis() -> None:
    with dripping(REPLY) as server, ThreadPoolExecutor() as threads:
        run = partial(flask, broker=f"redis://127.0.0.1:{server.port}/0")
        running = [threads.submit(run, "sse", *command, "--timeout", "2") for command in COMMANDS]
        for one in running:
            done = one.result(LIMIT)
            assert done.returncode == 1
            assert "the time limit is over" in done.stderr
        assert server.connections >= len(COMMANDS)
        assert server.sent > len(COMMANDS)  # it did drip


def test_no_event_controls_the_terminal(empty_valkey: str) -> None:
    publish_as_another_program(empty_valkey, "news", f"event: {EVIL}\ndata: {EVIL}\n\n".encode())
    done = flask("sse", "history", "news", broker=empty_valkey)
    assert "owned" in done.stdout  # the event did come
    assert_harmless(done.stdout + done.stderr)
