"""Bytes from Redis become messages, however the network splits them, with and without gevent."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import gevent.socket
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import ConnectionError, InvalidResponse, ResponseError

from flask_sse_push.brokers.redis.arrivals import MAX_HEAD, SIZE, Message, Messages, Receiver, receiver

NAMES = st.from_regex(rb"\{sse:0\}:live:[A-Za-z0-9_:./@!-]{1,20}", fullmatch=True)
CONTENTS = st.binary(max_size=40) | st.sampled_from([b"\r\n", b"*3\r\n$7\r\nmessage\r\n", b"-ERR x\r\n"])
KINDS = st.sampled_from([b"message", b"smessage"])
CONFIRMATIONS = st.sampled_from([b"subscribe", b"unsubscribe", b"ssubscribe", b"sunsubscribe"])
MESSAGES = st.tuples(KINDS, NAMES, CONTENTS) | st.tuples(CONFIRMATIONS, NAMES, st.just(b""))


def sent(message: Message) -> bytes:
    """The bytes of a message, as Redis writes them."""
    kind, name, content = message
    last = b":1\r\n" if kind.endswith(b"subscribe") else b"$%d\r\n%b\r\n" % (len(content), content)
    return b"*3\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n%b" % (len(kind), kind, len(name), name, last)


@given(st.lists(MESSAGES, max_size=5), st.lists(st.integers(0, 400), max_size=8))
def test_messages_are_found_however_their_bytes_are_split(messages: list[Message], cuts: list[int]) -> None:
    data, parser = b"".join(map(sent, messages)), Messages()
    at = sorted({0, len(data), *[cut for cut in cuts if cut < len(data)]})
    found = [each for begin, end in pairwise(at) for each in parser.take(data[begin:end])]
    assert found == messages


def test_a_large_content_may_come_in_many_parts() -> None:
    message = (b"message", b"{sse:0}:live:a", b"x" * 300_000)
    data, parser = sent(message), Messages()
    parts = [data[at : at + 1000] for at in range(0, len(data), 1000)]
    assert [each for part in parts for each in parser.take(part)] == [message]


def test_a_refused_command_raises_what_the_server_says() -> None:
    before = (b"message", b"{sse:0}:live:a", b"1")
    with pytest.raises(ResponseError, match=r"^NOPERM no rights$"):
        Messages().take(sent(before) + b"-NOPERM no rights\r\n")


@pytest.mark.parametrize("data", [b"+PONG\r\n", b"HTTP/1.1 400\r\n", b"*3\r\n$7\r\n" + b"x" * MAX_HEAD])
def test_something_else_than_a_message_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidResponse):
        Messages().take(data)


@pytest.fixture(params=[socket.socketpair, gevent.socket.socketpair], ids=["threads", "gevent"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Any, Any]]:
    make: Callable[[], tuple[Any, Any]] = request.param
    ours, theirs = make()
    yield ours, theirs
    ours.close()
    theirs.close()


def test_a_wait_takes_its_time_although_the_loop_has_stood_still(pair: tuple[Any, Any]) -> None:
    gevent.sleep(0.001)  # a timer of the loop wakes this greenlet, as in a worker
    time.sleep(0.3)
    arrivals, began = receiver(pair[0]), time.monotonic()
    assert arrivals.receive(0.2) == b""
    assert time.monotonic() - began > 0.15
    arrivals.close()


def arrived(arrivals: Receiver, size: int) -> bytes:
    """Receives until there are `size` bytes."""
    data = bytearray()
    deadline = time.monotonic() + 30
    while len(data) < size and time.monotonic() < deadline:
        data += arrivals.receive(5)
    return bytes(data)


def test_a_receiver_returns_what_has_arrived(pair: tuple[Any, Any]) -> None:
    ours, theirs = pair
    arrivals = receiver(ours)
    for text in (b"one", b"two", b"x" * (SIZE + 10)):
        theirs.sendall(text)
        assert arrived(arrivals, len(text)) == text
    arrivals.close()
    arrivals.close()


def test_a_receiver_waits_no_longer_than_it_may(pair: tuple[Any, Any]) -> None:
    ours, theirs = pair
    arrivals = receiver(ours)
    for timeout in (0.05, 0.05, 0.1):
        began = time.monotonic()
        assert arrivals.receive(timeout) == b""
        assert time.monotonic() - began < 5
    theirs.sendall(b"late")
    assert arrived(arrivals, 4) == b"late"
    arrivals.close()


def test_a_receiver_notices_that_the_server_has_closed_the_connection(pair: tuple[Any, Any]) -> None:
    ours, theirs = pair
    arrivals = receiver(ours)
    theirs.close()
    with pytest.raises(ConnectionError):
        arrivals.receive(5)
    arrivals.close()


def test_waits_on_gevent_share_one_timer() -> None:
    ours, theirs = gevent.socket.socketpair()
    arrivals: Any = receiver(ours)
    theirs.sendall(b"one")
    assert arrived(arrivals, 3) == b"one"
    timer = arrivals._timer
    gevent.spawn_later(0.01, theirs.sendall, b"two")
    assert arrived(arrivals, 3) == b"two"
    assert arrivals._timer is timer
    assert timer.active
    arrivals.close()
    assert not timer.active
    ours.close()
    theirs.close()
