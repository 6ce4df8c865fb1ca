"""Which transport serves a request, and what becomes of a hijacked connection."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from flask_sse_push.config import Settings
from flask_sse_push.errors import ConfigError
from flask_sse_push.transports.generator import GeneratorStream, WatchedStream
from flask_sse_push.transports.selection import Transports


def test_without_gunicorns_gevent_worker_streams_use_the_generator_transport() -> None:
    transports = Transports(Settings(), lambda stream: None)
    assert type(transports.stream({}, "c", None, ("a",))) is GeneratorStream
    assert type(transports.stream({"gunicorn.socket": object()}, "c", None, ("a",))) is WatchedStream


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
    from flask_sse_push.transports import handover, hijacked_socket, hijacked_stream
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
    print(class_for(), class_for(SERVER_PROTOCOL="HTTP/1.0"))
    """
    )
    assert patched(script).split() == ["ChunkedStream", "RawStream"]


def test_a_gevent_whose_sockets_cannot_be_hijacked_is_logged_once() -> None:
    script = (
        STREAMS
        + """
    logging.basicConfig()
    hijacked_socket.detach = lambda client: client.fileno()  # as if a later gevent kept the socket
    print(class_for(), class_for())
    """
    )
    output = patched(script)
    assert output.count("WatchedStream") == 2
    assert output.count("sockets cannot be hijacked") == 1


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
    import errno
    left = []
    stream = Transports(Settings(retry=0), left.append).stream(environ, "c", None, ("a",))
    other.settimeout(5)
    HEAD = b"HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n"
    FIRST = b"e\\r\\nretry: 0\\nfirst\\r\\n"
    class Recovery:
        def close(self):
            pass
    class Hub:
        "Lets a stream join at once, with its first frames."
        def open(self, stream):
            pass
        def leave(self, stream):
            pass
        def follow(self, stream, recovery, timeout):
            stream.send_after_join(b"first")
            stream.join()
    def serve(head=HEAD):
        "Sends a response as gunicorn does."
        for chunk in stream.body(Hub(), Recovery()):
            if head:
                client.sendall(head)
            client.sendall(b"%X\\r\\n%b\\r\\n" % (len(chunk), chunk))
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
    def check(wanted):
        got = b""
        while len(got) < len(wanted):
            got += other.recv(1000)
        assert got == wanted, got
"""
)


def test_the_head_waits_for_the_first_chunk_and_goes_out_with_it() -> None:
    script = (
        HIJACKED
        + """
    serve()
    stream.write(stream.framed(b"live"))
    check(HEAD + FIRST + b"4\\r\\nlive\\r\\n")
    print(stream.buffered, len(left), len(handover._handovers))
    """
    )
    assert patched(script).split() == ["0", "0", "0"]


def test_a_stream_that_ends_when_it_joins_ends_after_its_head() -> None:
    script = (
        HIJACKED
        + """
    class Ending(Hub):
        def follow(self, *args):
            super().follow(*args)
            stream.write(stream.framed(b"live"))
            stream.end(b"bye")
    Hub = Ending
    serve()
    check(HEAD + FIRST + b"4\\r\\nlive\\r\\n3\\r\\nbye\\r\\n0\\r\\n\\r\\n")
    print(len(left), other.recv(1))
    """
    )
    assert patched(script).split() == ["1", "b''"]


def test_a_body_that_a_middleware_began_goes_on() -> None:
    """A middleware may send bytes of its own before the stream's; the head has gone out with them."""
    script = (
        HIJACKED
        + """
    client.sendall(HEAD)
    client.sendall(b"1\\r\\n\\n\\r\\n")
    assert received() == HEAD + b"1\\r\\n\\n\\r\\n"
    serve(head=b"")
    check(FIRST)
    print(len(left))
    """
    )
    assert patched(script).split() == ["0"]


def test_a_body_that_the_server_never_reads_leaves_nothing_behind() -> None:
    script = (
        HIJACKED
        + """
    client.close()
    print(other.recv(1000), len(handover._handovers), type(client).__name__)
    """
    )
    assert patched(script).split() == ["b''", "0", "socket"]


def test_a_body_that_a_middleware_cuts_off_is_sent_up_to_there() -> None:
    script = (
        HIJACKED
        + """
    body = stream.body(Hub(), Recovery())
    client.sendall(HEAD)
    client.sendall(b"%X\\r\\n%b\\r\\n" % (len(chunk := next(body)), chunk))
    body.close()
    client.sendall(b"0\\r\\n\\r\\n")
    check(HEAD + b"9\\r\\nretry: 0\\n\\r\\n" + b"0\\r\\n\\r\\n")
    print(len(handover._handovers), type(client).__name__)
    """
    )
    assert patched(script).split() == ["0", "socket"]


def test_an_interim_response_is_no_head() -> None:
    script = (
        HIJACKED
        + """
    EARLY = b"HTTP/1.1 103 Early Hints\\r\\nLink: </a.css>\\r\\n\\r\\n"
    client.sendall(EARLY)
    serve()
    check(EARLY + HEAD + FIRST)
    print("ok")
    """
    )
    assert patched(script).split() == ["ok"]
