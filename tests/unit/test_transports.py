"""Which transport a request gets."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from flask_sse_push.config import Settings
from flask_sse_push.errors import ConfigError
from flask_sse_push.transports import Transports
from flask_sse_push.transports.generator import GeneratorSink


def test_without_gunicorns_gevent_worker_streams_go_by_generator() -> None:
    transports = Transports(Settings(), lambda sink: None)
    assert type(transports.sink({}, "c", None, ("a",))) is GeneratorSink
    assert type(transports.sink({"gunicorn.socket": object()}, "c", None, ("a",))) is GeneratorSink


def test_hijacking_cannot_be_forced_where_it_does_not_work() -> None:
    transports = Transports(Settings(transport="hijack"), lambda sink: None)
    with pytest.raises(ConfigError, match="SSE_PUSH_TRANSPORT is 'hijack'"):
        transports.sink({}, "c", None, ("a",))


def patched(script: str) -> str:
    """Runs a script in a process of its own, patched by gevent; returns what it prints."""
    code = "from gevent import monkey; monkey.patch_all()\n" + textwrap.dedent(script)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


SINKS = """
    import gevent.socket, logging
    from flask_sse_push.config import Settings
    from flask_sse_push.transports import Transports, hijack
    client, other = gevent.socket.socketpair()
    environ = {"gunicorn.socket": client, "SERVER_PROTOCOL": "HTTP/1.1"}
    transports = Transports(Settings(), lambda sink: None)
    def kind(**more):
        return type(transports.sink({**environ, **more}, "c", None, ("a",))).__name__
"""


def test_a_plain_gevent_socket_is_taken_over_by_its_protocol() -> None:
    script = (
        SINKS
        + """
    print(kind(), kind(SERVER_PROTOCOL="HTTP/1.0"), kind(SERVER_PROTOCOL="HTTP/2"))
    """
    )
    assert patched(script).split() == ["ChunkedSink", "RawSink", "GeneratorSink"]


def test_a_gevent_that_does_not_behave_as_expected_is_noticed_and_said_once() -> None:
    script = (
        SINKS
        + """
    logging.basicConfig()
    hijack.take_over = lambda client: client.fileno()  # as if a later gevent kept the socket
    print(kind(), kind())
    """
    )
    output = patched(script)
    assert output.count("GeneratorSink") == 2
    assert output.count("cannot be taken over") == 1


def test_a_chunk_on_its_way_to_a_client_that_has_left_reaches_nobody_else() -> None:
    """The number of a closed descriptor is given to the next connection."""
    script = (
        SINKS
        + """
    def leave(sink):
        next_one, its_client = gevent.socket.socketpair()
        assert number in (next_one.fileno(), its_client.fileno())
        sink.write(b"meant for the one who left")
        for end in (next_one, its_client):
            end.setblocking(False)
            try:
                print("LEAKED", end.recv(100))
            except BlockingIOError:
                print("nothing leaked")
    sink = Transports(Settings(), leave).sink(environ, "c", None, ("a",))
    sink.join()
    number = sink.fd
    other.close()
    gevent.sleep(0.2)
    """
    )
    assert patched(script).splitlines()[:2] == ["nothing leaked"] * 2
