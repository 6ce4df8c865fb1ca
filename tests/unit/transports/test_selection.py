"""Which transport serves a request, and what becomes of a hijacked connection."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from flask_sse_push.config import Settings
from flask_sse_push.errors import ConfigError
from flask_sse_push.transports.generator import GeneratorStream
from flask_sse_push.transports.selection import Transports


def test_without_gunicorns_gevent_worker_streams_use_the_generator_transport() -> None:
    transports = Transports(Settings(), lambda stream: None)
    assert type(transports.stream({}, "c", None, ("a",))) is GeneratorStream
    assert type(transports.stream({"gunicorn.socket": object()}, "c", None, ("a",))) is GeneratorStream


def test_demanding_hijack_where_it_does_not_work_is_a_configuration_error() -> None:
    transports = Transports(Settings(transport="hijack"), lambda stream: None)
    with pytest.raises(ConfigError, match="SSE_PUSH_TRANSPORT is 'hijack'"):
        transports.stream({}, "c", None, ("a",))


def patched(script: str) -> str:
    """Runs a script in a process of its own, patched by gevent; returns what it prints."""
    code = "from gevent import monkey; monkey.patch_all()\n" + textwrap.dedent(script)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


STREAMS = """
    import gevent.socket, logging
    from flask_sse_push.config import Settings
    from flask_sse_push.transports import hijacked_socket, hijacked_stream
    from flask_sse_push.transports.selection import Transports
    client, other = gevent.socket.socketpair()
    environ = {"gunicorn.socket": client, "SERVER_PROTOCOL": "HTTP/1.1"}
    transports = Transports(Settings(), lambda stream: None)
    def class_for(**more):
        return type(transports.stream({**environ, **more}, "c", None, ("a",))).__name__
"""


def test_a_plain_gevent_socket_is_hijacked_in_the_way_of_its_protocol() -> None:
    script = (
        STREAMS
        + """
    print(class_for(), class_for(SERVER_PROTOCOL="HTTP/1.0"), class_for(SERVER_PROTOCOL="HTTP/2"))
    """
    )
    assert patched(script).split() == ["ChunkedStream", "RawStream", "GeneratorStream"]


def test_a_gevent_whose_sockets_cannot_be_hijacked_is_logged_once() -> None:
    script = (
        STREAMS
        + """
    logging.basicConfig()
    hijacked_socket.detach = lambda client, begin: client.fileno()  # as if a later gevent kept the socket
    print(class_for(), class_for())
    """
    )
    output = patched(script)
    assert output.count("GeneratorStream") == 2
    assert output.count("cannot be hijacked") == 1


def test_a_chunk_on_its_way_to_a_client_that_has_left_reaches_nobody_else() -> None:
    """The number of a closed descriptor is given to the next connection."""
    script = (
        STREAMS
        + """
    def leave(stream):
        next_one, its_client = gevent.socket.socketpair()
        assert number in (next_one.fileno(), its_client.fileno())
        stream.write(b"meant for the one who left")
        for end in (next_one, its_client):
            end.setblocking(False)
            try:
                print("LEAKED", end.recv(100))
            except BlockingIOError:
                print("nothing leaked")
    stream = Transports(Settings(), leave).stream(environ, "c", None, ("a",))
    stream.join()
    number = stream.write_fd
    other.close()
    gevent.sleep(0.2)
    """
    )
    assert patched(script).splitlines()[:2] == ["nothing leaked"] * 2


HIJACKED = (
    STREAMS
    + """
    import errno, socket
    left = []
    stream = Transports(Settings(retry=0), left.append).stream(environ, "c", None, ("a",))
    other.settimeout(5)
    HEAD = b"HTTP/1.1 200 OK\\r\\n\\r\\n"
    FIRST = b"e\\r\\nretry: 0\\nfirst\\r\\n"
    def end_of_body():
        "gunicorn takes this for a client that has left."
        try:
            client.sendall(b"0\\r\\n\\r\\n")
        except OSError as error:
            assert error.errno == errno.EPIPE
            client.close()
            return
        assert False, "the end of the body was sent"
    def received():
        other.setblocking(False)
        try:
            return other.recv(1000)
        except BlockingIOError:
            return b""
        finally:
            other.settimeout(5)
"""
)


def test_the_first_chunk_waits_for_the_head_and_goes_out_with_it() -> None:
    script = (
        HIJACKED
        + """
    stream.send_after_join(b"first")
    stream.join()
    stream.write(stream.framed(b"live"))
    gevent.sleep(0.1)
    assert received() == b""
    client.sendall(HEAD)
    end_of_body()
    stream.write(stream.framed(b"more"))
    wanted = HEAD + FIRST + b"4\\r\\nlive\\r\\n4\\r\\nmore\\r\\n"
    got = b""
    while len(got) < len(wanted):
        got += other.recv(1000)
    print(got == wanted, stream.buffered, len(left))
    """
    )
    assert patched(script).split() == ["True", "0", "0"]


def test_a_stream_that_ends_before_its_head_was_sent_ends_after_it() -> None:
    script = (
        HIJACKED
        + """
    stream.send_after_join(b"first")
    stream.join()
    stream.end(b"bye")
    gevent.sleep(0.1)
    assert received() == b"" and not left
    client.sendall(HEAD)
    end_of_body()
    got = b""
    while chunk := other.recv(1000):
        got += chunk
    print(got == HEAD + FIRST + b"3\\r\\nbye\\r\\n0\\r\\n\\r\\n", len(left))
    """
    )
    assert patched(script).split() == ["True", "1"]


def test_a_body_that_a_middleware_began_goes_on() -> None:
    """A middleware may send bytes of its own before the stream's; the head has gone out with them."""
    script = (
        HIJACKED
        + """
    client.sendall(HEAD)
    client.sendall(b"1\\r\\n\\n\\r\\n")
    stream.send_after_join(b"first")
    stream.join()
    end_of_body()
    wanted = HEAD + b"1\\r\\n\\n\\r\\n" + FIRST
    got = b""
    while len(got) < len(wanted):
        got += other.recv(1000)
    print(got == wanted, len(left))
    """
    )
    assert patched(script).split() == ["True", "0"]


def test_a_response_whose_head_is_never_sent_leaves_no_stream() -> None:
    script = (
        HIJACKED
        + """
    stream.send_after_join(b"first")
    stream.join()
    client.close()
    print(len(left), other.recv(1000), len(hijacked_socket._head_handlers))
    """
    )
    assert patched(script).strip() == "1 b'' 0"
