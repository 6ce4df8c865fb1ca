"""The slow-client policy: one rule for both transports."""

from __future__ import annotations

from flask_sse_push.config import Settings
from flask_sse_push.transports.generator import GeneratorStream

from .test_descriptors import CONNECTIONS
from .test_selection import patched


def new_stream() -> GeneratorStream:
    return GeneratorStream("c", None, ("a",), Settings(max_buffer=1000, write_timeout=5.0))


def test_a_generator_stream_ends_when_more_than_the_buffer_waits() -> None:
    stream = new_stream()
    stream.write(b"x" * 1000)
    assert (stream.buffered, stream.ended) == (1000, False)
    stream.write(b"y")
    assert (stream.buffered, stream.ended, stream.reason) == (0, True, "slow")
    stream.write(b"too late")
    body = stream.take()
    assert body.startswith(b"event: sse.close\n")
    assert b'"reason":"slow","reconnect":true' in body
    assert stream.take() == b""


def test_a_client_that_takes_nothing_for_the_write_timeout_is_cut() -> None:
    stream = new_stream()
    assert not stream.cut_if_stuck(1e9)  # nothing waits for it
    stream.waiting_since = 100.0
    assert not stream.cut_if_stuck(105.0)
    assert (stream.ended, stream.reason) == (False, None)
    assert stream.cut_if_stuck(105.1)
    assert (stream.ended, stream.reason) == (True, "stuck")
    assert stream.take() == b""  # without a last frame: the client would not read it


HIJACKED = (
    CONNECTIONS
    + """
    stream, other = connect()
    assert not stream.cut_if_stuck(1e9)  # nothing waits for it
    sent = 0
    while not stream.buffered:
        chunk_of(b"<" + b"-" * 298 + b">").write(0, 1)
        sent += 300
        assert sent < 100_000_000, "the socket takes everything"
    assert not stream.reason
    """
)


def test_a_hijacked_stream_ends_when_more_than_the_buffer_waits() -> None:
    """The rest of the chunk under way still goes out: the body would break without it."""
    script = (
        HIJACKED
        + """
    for _ in range(4):
        chunk_of(b"dropped" * 50).write(0, 1)
    assert stream.reason == "slow" and not left
    got = b""
    while part := other.recv(1 << 20):
        got += part
    body, close = got[:sent], got[sent:]
    assert body == (b"<" + b"-" * 298 + b">") * (sent // 300)
    print(close.startswith(b"event: sse.close"), b'"reason":"slow","reconnect":true' in close, len(left))
    """
    )
    assert patched(script).split() == ["True", "True", "1"]


def test_a_hijacked_stream_whose_client_takes_nothing_is_cut() -> None:
    script = (
        HIJACKED
        + """
    since = stream.waiting_since
    limit = Settings().write_timeout
    assert not stream.cut_if_stuck(since + limit)
    assert stream.cut_if_stuck(since + limit + 0.1)
    print(stream.reason, left == [stream], stream.buffered, stream.waiting_since)
    """
    )
    assert patched(script).split() == ["stuck", "True", "0", "None"]
