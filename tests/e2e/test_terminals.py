"""The commands against hostile data and hostile servers: nothing controls the terminal, nothing hangs."""

from __future__ import annotations

import json
import shlex
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import redis

from tests.support.dripping import dripping, parrot

from .test_cli import flask

#: What a hostile app or server puts into its texts: it sets the window's title, clears the screen, forges a
#: line, turns the direction of writing, and writes with C1 controls.
EVIL = "\x1b]0;owned\x07\x1b[2J\r\nforged \u202e \x9b31m \x7f"
#: The characters of EVIL that must not reach the terminal.
OBEYED = "\x1b\x07\r\u202e\x9b\x7f"
DEEP = "[" * 100_000

#: The beginnings of answers that never end.
HEAD = b"HTTP/1.1 200 OK\r\nX-Long: "
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: "
REFUSAL = b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nContent-Length: 9000\r\n\r\n{"
REPLY = b"$1000000\r\n"

Done = subprocess.CompletedProcess[str]
#: How many commands run at the same time. They mostly wait.
MANY = 16


def assert_harmless(output: str) -> None:
    found = sorted(set(OBEYED) & set(output))
    assert found == [], output
    assert "Traceback" not in output


def publish_as_another_program(broker: str, channel: str, frame: bytes) -> None:
    """Stores an event whose frame no version of this package would write."""
    with redis.Redis.from_url(broker) as client:
        assert flask("sse", "publish", channel, "MARKER", broker=broker).returncode == 0
        [key] = [key for key in client.keys("*") if key.endswith(b":list:" + channel.encode())]
        [entry] = client.lrange(key, 0, -1)
        assert entry.endswith(b"data: MARKER\n\n")
        client.lset(key, 0, entry.removesuffix(b"data: MARKER\n\n") + frame)


#: Frames that no version of this package would write, by the name of their channel.
FRAMES = {
    "escapes": f"event: {EVIL}\ndata: {EVIL}\n\n".encode(),
    "bytes": b"event: \xff\x1b[2J\ndata: \xfe\x9b\x1b]0;x\x07\n\n",
    "deep": b"data: " + DEEP.encode() + b"\t\n\n",
    "end": b"no colon, no end",
    "data": b"data: \x1b]0;owned\x07 \xc2\x9b31m \x7f \xe2\x80\xae\n\n",
}


@pytest.fixture(scope="module")
def foreign(valkey_url: str) -> Iterator[dict[str, list[Future[Done]]]]:
    """Lets all commands show all frames of FRAMES at once, since they mostly wait."""
    with redis.Redis.from_url(valkey_url) as client:
        client.flushall()
    for channel, frame in FRAMES.items():
        publish_as_another_program(valkey_url, channel, frame)
    tail = ("tail", "--since", "earliest", "--timeout", "4", "--channel")
    commands = (("history",), tail, ("tail", "--json", *tail[1:]))
    with ThreadPoolExecutor(MANY) as pool:
        yield {
            channel: [pool.submit(flask, "sse", *command, channel, broker=valkey_url) for command in commands]
            for channel in FRAMES
        }


@pytest.mark.parametrize("channel", FRAMES)
def test_history_and_tail_show_foreign_events_harmlessly(
    channel: str, foreign: dict[str, list[Future[Done]]]
) -> None:
    for call in foreign[channel]:
        done = call.result()
        assert_harmless(done.stdout + done.stderr)
        assert done.stdout.count("\n") <= 1
        assert done.stdout or "was not written by flask_sse_push" in done.stderr  # shown, or told


def test_a_deep_value_can_be_published_and_shown(empty_valkey: str) -> None:
    done = flask("sse", "publish", "news", DEEP[:9000], broker=empty_valkey)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    assert flask("sse", "history", "news", broker=empty_valkey).stdout.count("[") == 200


def test_an_error_of_the_broker_is_shown_harmlessly() -> None:
    with dripping(f"-ERR {EVIL[:-20]}\r\n".encode()) as server:
        done = flask("sse", "publish", "a", "x", broker=f"redis://127.0.0.1:{server.port}/0")
        assert server.connections
    assert done.returncode == 1
    assert_harmless(done.stdout + done.stderr)


# -- hostile HTTP servers ------------------------------------------------------------------------------


LINE = "\x1b]0;owned\x07\x1b[2J\x9b31m\x7f"  # EVIL on one line, as headers need it
#: The answers of hostile servers: status, reason, type and body.
ANSWERS = (
    (403, f"No {LINE}", "text/plain", EVIL.encode()),
    (403, "No", "application/json", json.dumps({"code": 1201, "message": EVIL}).encode()),
    (403, "No", "application/json", DEEP.encode()),
    (302, "Elsewhere", LINE, b""),
    (200, "OK", LINE, b""),
    (200, "OK", "text/event-stream", f"event: sse.open\ndata: {DEEP}\n\n".encode()),
    (200, "OK", "text/event-stream", f"event: sse.open\ndata: {json.dumps([EVIL])}\n\n".encode()),
    (200, "OK", "text/event-stream", b"event: sse.open\nid: \x80\xff\ndata: {}\n\n"),
    (
        200,
        "OK",
        "text/event-stream",
        b'event: sse.batch\ndata: [{"type": "\\ud800", "data": "\\ud83d\\u001b"}]\n\n',
    ),
    (
        200,
        "OK",
        "text/event-stream",
        b'event: sse.reset\ndata: {"channels": 5, "reason": "\\u001b[2J"}\n\n',
    ),
    (200, "OK", "text/event-stream", b"retry: " + b"9" * 400 + b"\ndata: x\n\n"),
)


class Hostile(BaseHTTPRequestHandler):
    """Gives the answer of ANSWERS whose number is the first part of the path."""

    def do_GET(self) -> None:
        status, reason, kind, body = ANSWERS[int(self.path.split("/")[1])]
        self.wfile.write(
            f"HTTP/1.0 {status} {reason}\r\nContent-Type: {kind}\r\nLocation: {kind}\r\n".encode("latin-1")
        )
        self.wfile.write(f"Content-Length: {len(body)}\r\n\r\n".encode() + body)

    def log_message(self, *args: Any) -> None:
        """Logs nothing."""


@pytest.fixture(scope="module")
def hostile(valkey_url: str) -> Iterator[list[list[Future[Done]]]]:
    """Lets the doctor and tail ask for each of ANSWERS, all at once."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Hostile) as server, ThreadPoolExecutor(MANY) as pool:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        urls = [f"http://127.0.0.1:{server.server_port}/{number}/stream" for number in range(len(ANSWERS))]
        yield [
            [
                pool.submit(flask, "sse", *command, url, broker=valkey_url, NO_PROXY="*")
                for command in (("doctor", "--url"), ("tail", "--all", "--timeout", "4"))
            ]
            for url in urls
        ]
        pool.shutdown()
        server.shutdown()


@pytest.mark.parametrize("number", range(len(ANSWERS)))
def test_the_answers_of_a_hostile_server_are_shown_harmlessly(
    number: int, hostile: list[list[Future[Done]]]
) -> None:
    for call in hostile[number]:
        done = call.result()
        assert done.stdout + done.stderr
        assert_harmless(done.stdout + done.stderr)


# -- servers that never end their answers --------------------------------------------------------------


def timed(*arguments: str, broker: str) -> tuple[float, str]:
    """Runs a command that must fail without a traceback. Returns its seconds and its output."""
    began = time.monotonic()
    done = flask("sse", *arguments, broker=broker, NO_PROXY="*")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return time.monotonic() - began, done.stdout + done.stderr


#: Commands that a dripping Redis holds until their time limit, and what they say then.
DRIPPED = {
    "history a --timeout 1": "the time limit is over",
    "channels --timeout 1": "the time limit is over",
    "stats --timeout 1": "the time limit is over",
    "publish a x --timeout 1": "The event is stored once or not at all",
    "doctor --timeout 8": "the time limit is over",
    "tail --channel a": "the time limit is over",
}
#: Commands that ask a dripping HTTP server, for about 20 seconds, by the name of the case.
SLOW = {
    "tail, head": ("tail", HEAD),
    "tail, refusal": ("tail", REFUSAL),
    "doctor, head": ("doctor --url", HEAD),
    "doctor, stream": ("doctor --url", STREAM),
}


@pytest.fixture(scope="module", autouse=True)
def ended(valkey_url: str) -> Iterator[dict[str, Future[tuple[float, str]]]]:
    """Runs all commands of SLOW and DRIPPED at once, since they only wait. Returns their seconds and outputs.

    Starts them before the first test of the file.
    """

    def run(command: str, beginning: bytes) -> tuple[float, str]:
        with dripping(beginning) as server:
            url, broker = f"http://127.0.0.1:{server.port}/stream", valkey_url
            if beginning == REPLY:
                url, broker = "", f"redis://127.0.0.1:{server.port}/0"
            seconds, output = timed(*shlex.split(f"{command} {url}"), broker=broker)
            assert server.sent > 3  # it did drip
        return seconds, output

    cases = {**SLOW, **{command: (command, REPLY) for command in DRIPPED}}
    with ThreadPoolExecutor(len(cases)) as pool:
        yield {name: pool.submit(run, *case) for name, case in cases.items()}


@pytest.mark.parametrize("command", DRIPPED)
def test_a_dripping_redis_holds_no_command(command: str, ended: dict[str, Future[tuple[float, str]]]) -> None:
    seconds, output = ended[command].result()
    assert seconds < 60
    assert DRIPPED[command] in output


@pytest.mark.parametrize("case", ["tail, head", "tail, refusal"])
def test_a_dripping_server_does_not_hold_tail(case: str, ended: dict[str, Future[tuple[float, str]]]) -> None:
    seconds, output = ended[case].result()
    assert seconds < 60
    assert "refused: 403" in output or "no whole answer in 20 s" in output


@pytest.mark.parametrize("case", ["doctor, head", "doctor, stream"])
def test_a_dripping_server_does_not_hold_the_doctor(
    case: str, ended: dict[str, Future[tuple[float, str]]]
) -> None:
    seconds, output = ended[case].result()
    assert seconds < 80
    assert "the time limit is over" not in output  # the doctor goes on, and says what is wrong
    assert "broken" in output


#: Answers of servers that are no Redis, and the commands that get them.
PARROTS = {"OK": b"+OK\r\n", "deep": b"*1\r\n" * 3000 + b":1\r\n"}
ASKING = ("history a", "channels", "stats", "publish a x", "doctor", "tail --channel a")


@pytest.fixture(scope="module")
def answered() -> Iterator[dict[tuple[str, str], Future[tuple[float, str]]]]:
    """Lets each command of ASKING get each answer of PARROTS, all at once."""

    def run(answer: bytes, command: str) -> tuple[float, str]:
        with parrot(answer) as port:
            return timed(*command.split(), "--timeout", "20", broker=f"redis://127.0.0.1:{port}/0")

    with ThreadPoolExecutor(MANY) as pool:
        yield {
            (name, command): pool.submit(run, answer, command)
            for name, answer in PARROTS.items()
            for command in ASKING
        }


@pytest.mark.parametrize("answer", PARROTS)
@pytest.mark.parametrize("command", ASKING)
def test_a_server_that_is_no_redis_ends_no_command_in_a_traceback(
    answer: str, command: str, answered: dict[tuple[str, str], Future[tuple[float, str]]]
) -> None:
    _, output = answered[answer, command].result()
    assert "cannot be read" in output or "does not answer as it should" in output
