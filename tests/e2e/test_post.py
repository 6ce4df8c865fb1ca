"""Streams that are opened by POST, on a real gunicorn, which must have read the whole body."""

from __future__ import annotations

import json

import httpx
import pytest

from flask_sse_push import MessageAnnouncer
from tests.support.deadline import eventually
from tests.support.stream import Stream

from .conftest import Serve

pytestmark = pytest.mark.usefixtures("transport")

#: As many channels as one stream may have, with the longest names.
NAMES = [f"{n}:".ljust(200, "x") for n in range(50)]
BODY = json.dumps({"channels": NAMES}).encode()
JSON = {"Content-Type": "application/json"}
LENGTH = {**JSON, "Content-Length": str(len(BODY))}


def in_chunks(body: bytes, size: int) -> list[bytes]:
    """Returns the parts of a chunked body, each with a chunk extension, and a trailer at the end."""
    parts = [body[begin : begin + size] for begin in range(0, len(body), size)]
    return [b"%x;x=y\r\n%b\r\n" % (len(part), part) for part in parts] + [b"0\r\n", b"X-Sum: z\r\n\r\n"]


#: The ways to send BODY: the version of HTTP, the headers, and the parts that are sent one after another.
WAYS: list[tuple[str, dict[str, str], list[bytes]]] = [
    ("1.1", LENGTH, [BODY]),
    ("1.1", LENGTH, [BODY[:1], BODY[1:5000], BODY[5000:]]),
    ("1.1", {**LENGTH, "Expect": "100-continue"}, [BODY]),
    ("1.1", {**JSON, "Transfer-Encoding": "chunked"}, in_chunks(BODY, 1000)),
    ("1.1", {**JSON, "Transfer-Encoding": "chunked"}, [b"".join(in_chunks(BODY, 100_000))]),
    ("1.1", LENGTH, [BODY + b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"]),
    ("1.1", {**LENGTH, "Connection": "close"}, [BODY]),
    ("1.0", LENGTH, [BODY]),
    ("1.0", {**LENGTH, "Connection": "keep-alive"}, [BODY]),
]


def test_a_stream_gets_events_of_all_channels_in_the_body(serve: Serve, empty_valkey: str) -> None:
    server = serve()
    announcer = MessageAnnouncer.from_url(empty_valkey)
    for version, headers, body in WAYS:
        cursor = announcer.publish("seen", channel=NAMES[0])
        announcer.publish("missed", channel=NAMES[49])
        with Stream(
            f"{server.url}/stream", method="POST", version=version, headers=headers, body=body, cursor=cursor
        ) as stream:
            assert (stream.status, version, headers) == (200, version, headers)
            assert stream.next_of("sse.open").json()["channels"] == NAMES
            assert stream.next().data == "missed"
            for n, name in enumerate(NAMES):
                announcer.publish({"n": n}, channel=name)
                assert stream.next().json() == {"n": n}
    assert "Traceback" not in server.log.read_text()


def test_a_refused_body_leaves_the_connection_usable(serve: Serve, http: httpx.Client) -> None:
    server = serve()
    for content, status in ((b"x" * 40_000, 400), (b"x" * 500_000, 413), (b"{}", 200)):
        with http.stream("POST", f"{server.url}/stream", content=content, headers=JSON) as answer:
            assert answer.status_code == status
            if status != 200:
                answer.read()
                assert answer.json()["code"] == 1301
        assert http.get(f"{server.url}/").text == "hello"


def test_a_chunked_body_without_end_is_refused_when_it_is_too_large(serve: Serve) -> None:
    server = serve()
    with Stream(
        f"{server.url}/stream",
        method="POST",
        headers={**JSON, "Transfer-Encoding": "chunked"},
        body=[b"%x\r\n%b\r\n" % (10_000, b"x" * 10_000)] * 10,
    ) as stream:
        assert stream.status == 413


def test_a_body_with_broken_chunks_is_refused(serve: Serve) -> None:
    server = serve()
    headers = {**JSON, "Transfer-Encoding": "chunked"}
    wrong_size, no_end, wrong_trailer = b"zz\r\n{}\r\n0", b"2\r\n{}xx0", b"2\r\n{}\r\n0\r\nTrailer: z"
    for chunks in (wrong_size, no_end, wrong_trailer):
        body = [chunks + b"\r\n\r\n"]
        with Stream(f"{server.url}/stream", method="POST", headers=headers, body=body) as stream:
            assert (stream.status, chunks) == (400, chunks)
    assert "Traceback" not in server.log.read_text()


def test_a_client_that_leaves_within_its_body_opens_no_stream(serve: Serve, http: httpx.Client) -> None:
    server = serve()
    for _ in range(5):
        with pytest.raises((EOFError, OSError)):
            Stream(f"{server.url}/stream", method="POST", headers=LENGTH, body=[BODY[:100]], timeout=0.2)
    eventually(lambda: http.get(f"{server.url}/").text == "hello", 10)
    assert http.get(f"{server.url}/stats").json()["streams"] == 0


def test_a_ticket_in_a_body_is_in_no_log(serve: Serve) -> None:
    server = serve("tests.apps.plain:app", "--log-level", "debug", "--access-logfile", "-")
    body = b'{"ticket": "secret-ticket"}'
    headers = {**JSON, "Content-Length": str(len(body))}
    with Stream(f"{server.url}/stream", method="POST", headers=headers, body=[body]) as stream:
        assert stream.status == 401
    assert "secret-ticket" not in server.log.read_text()
