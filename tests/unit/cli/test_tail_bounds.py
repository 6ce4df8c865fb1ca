"""`flask sse tail` and a hostile server: neither memory nor processor time without a bound."""

from __future__ import annotations

import gzip
import ssl
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import httpx
import pytest

from flask_sse_push.cli.tail import bounds
from flask_sse_push.cli.tail.bounds import BoundedText, within_bounds
from flask_sse_push.cli.tail.news import Disconnected, Ended, News
from flask_sse_push.cli.tail.url import URLSource
from tests.support.deadline import eventually
from tests.support.dripping import dripping

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
EVENT = b"id: e-1\ndata: x\n\n"


def follow(port: int, seen: list[News]) -> URLSource:
    source = URLSource(f"http://127.0.0.1:{port}/", {}, "", seen.append, ssl.create_default_context())
    threading.Thread(target=source.run, daemon=True).start()
    return source


def test_a_line_without_an_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_EVENT", 10_000)
    seen: list[News] = []
    with dripping(HEAD + EVENT, b"x" * 3000) as server:
        source = follow(server.port, seen)
        eventually(lambda: [each for each in seen if isinstance(each, Disconnected)])
        source.close()
        assert server.sent >= 3
    (lost, *_) = [each for each in seen if isinstance(each, Disconnected)]
    assert "an event has more than 10000 characters" in lost.why


def test_a_line_that_takes_too_long_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_LINE_TIME", 0.5)
    seen: list[News] = []
    with dripping(HEAD + EVENT) as server:
        source = follow(server.port, seen)
        eventually(lambda: [each for each in seen if isinstance(each, Disconnected)])
        source.close()
    (lost, *_) = [each for each in seen if isinstance(each, Disconnected)]
    assert "a line has no end after 0.5 s" in lost.why


def test_a_quiet_stream_and_slow_lines_that_end_are_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    # Only of this module: threads that other tests have left behind would see their clock jump.
    monkeypatch.setattr(bounds, "time", SimpleNamespace(monotonic=lambda: now))
    texts = ["a\n", "data", ": x\n", "\n", "data: y\n\nda", "ta: z\r"]

    def body() -> Iterator[bytes]:
        nonlocal now
        for text in texts:
            yield text.encode()
            now += 50 if text[-1] not in "\r\n" else 1000

    assert "".join(BoundedText(httpx.Response(200, content=body())).iter_text()) == "".join(texts)


@pytest.mark.parametrize("answer", [b"503 Busy", b"200 OK"])
@pytest.mark.parametrize("encoding", [b"gzip, gzip", b"gzip,br"])
def test_an_answer_that_is_compressed_twice_is_not_read(encoding: bytes, answer: bytes) -> None:
    bomb = gzip.compress(gzip.compress(bytes(10**7)))
    head = HEAD.replace(b"200 OK", answer)[:-2] + b"Content-Encoding: %b\r\nContent-Length: %d\r\n\r\n"
    seen: list[News] = []
    with dripping(head % (encoding, len(bomb)) + bomb, b"") as server:
        source = follow(server.port, seen)
        eventually(lambda: seen)
        source.close()
    (end, *_) = seen
    assert isinstance(end, Ended if answer == b"200 OK" else Disconnected)


@pytest.mark.parametrize(
    "beginning",
    [
        b"HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 503 Busy\r\nRetry-After: -5\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 503 Busy\r\nRetry-After: nan\r\nContent-Length: 0\r\n\r\n",
        HEAD + b'event: sse.close\ndata: {"reason":"drain","reconnect":true,"retry":0}\n\n',
    ],
)
def test_no_server_can_make_the_command_hammer(beginning: bytes) -> None:
    seen: list[News] = []
    with dripping(beginning, b"") as server:
        source = follow(server.port, seen)
        eventually(lambda: [each for each in seen if isinstance(each, Disconnected)])
        source.close()
    (lost, *_) = [each for each in seen if isinstance(each, Disconnected)]
    assert lost.pause >= bounds.SHORTEST_PAUSE


@pytest.mark.parametrize(
    ("pause", "used"), [(-1, 0.2), (0, 0.2), (3, 3), (1e300, 3600), (float("inf"), 3600)]
)
def test_a_pause_has_bounds(pause: float, used: float) -> None:
    assert within_bounds(pause) == used
