"""Which streams get a chunk: those in its group when it was made, on descriptors that are still theirs."""

from __future__ import annotations

from flask_sse_push.hub.group import Group
from flask_sse_push.hub.stream import Stream

from .test_selection import STREAMS, patched


class Client(Stream):
    """Keeps what it gets."""

    __slots__ = ("got",)

    def __init__(self, name: str) -> None:
        super().__init__(name, None, ("a",))
        self.got: list[bytes] = []

    def write(self, chunk: bytes) -> None:
        self.got.append(chunk)

    def end(self, frame: bytes) -> None:
        raise AssertionError("nobody ends")

    def cut_if_stuck(self, now: float) -> bool:
        return False


def test_a_chunk_goes_to_the_streams_that_were_in_the_group_when_it_was_chunk_of() -> None:
    group = Group(("a",), Client)
    ada, bob, eve = Client("ada"), Client("bob"), Client("eve")
    for client in (ada, bob):
        group.add(client)
    (first,) = group.flush(0.0, {}, b"first")
    group.remove(ada)
    group.add(eve)
    (second,) = group.flush(0.0, {}, b"second")
    for delivery in (first, second):
        delivery.write(0, len(delivery.recipients.streams))
    assert (ada.got, bob.got, eve.got) == ([b"first"], [b"first", b"second"], [b"second"])


def test_while_no_stream_joins_or_leaves_no_event_copies_the_recipients() -> None:
    group = Group(("a",), Client)
    group.add(Client("ada"))
    first, second = (group.flush(0.0, {}, b"x")[0] for _ in range(2))
    assert first.recipients is second.recipients
    group.add(Client("bob"))
    group.add(Client("eve"))
    assert len(first.recipients.streams) == 1
    assert len(group.recipients.streams) == 3


CONNECTIONS = (
    STREAMS
    + """
    from flask_sse_push.hub.group import Group
    left = []
    group = Group(("a",), hijacked_stream.RawStream)
    transports = Transports(Settings(max_buffer=1000), lambda stream: left.append(stream) or leave(stream))
    leave = group.remove

    def connect():
        client, other = gevent.socket.socketpair()
        other.settimeout(5)
        there = {"gunicorn.socket": client, "SERVER_PROTOCOL": "HTTP/1.0"}
        stream = transports.stream(there, "c", None, ("a",))
        stream.join()
        group.add(stream)
        return stream, other

    def chunk_of(chunk):
        return group.flush(0.0, {}, chunk)[0]

    def received(other):
        other.setblocking(False)
        try:
            return other.recv(1 << 20)
        except BlockingIOError:
            return b""
        finally:
            other.settimeout(5)

    def check_array():
        assert list(group.recipients.fds) == [stream.write_fd for stream in group.streams]
    """
)


def test_a_descriptor_that_became_anothers_in_the_middle_of_a_chunk_is_not_written_to() -> None:
    """A `stream_closed` handler may switch to other greenlets: one stream leaves, another one opens."""
    script = (
        CONNECTIONS
        + """
    one, two, three = connect(), connect(), connect()
    number = two[0].write_fd
    newcomers = []
    def leave(stream):
        group.remove(stream)
        if stream is one[0]:
            two[0].cut()
            for _ in range(4):
                newcomers.extend(gevent.socket.socketpair())
            assert number in [newcomer.fileno() for newcomer in newcomers]
    one[1].close()
    chunk = chunk_of(b"x" * 2000)
    chunk.write(0, len(chunk.recipients.streams))
    assert left == [one[0], two[0]], left
    print(b"".join(received(newcomer) for newcomer in newcomers), len(received(three[1])))
    check_array()
    """
    )
    assert patched(script).splitlines() == ["b'' 2000"]


def test_a_descriptor_that_became_anothers_before_the_chunk_was_written_is_not_written_to() -> None:
    script = (
        CONNECTIONS
        + """
    one, two = connect(), connect()
    number = one[0].write_fd
    chunk = chunk_of(b"chunk")
    three = connect()  # from here on the group has other recipients than the chunk
    assert not chunk.recipients.is_outdated
    one[0].cut()
    assert chunk.recipients.is_outdated
    newcomers = gevent.socket.socketpair()
    assert number in [newcomer.fileno() for newcomer in newcomers]
    chunk.write(0, len(chunk.recipients.streams))
    print([received(newcomer) for newcomer in newcomers], received(two[1]), received(three[1]))
    check_array()
    """
    )
    assert patched(script).splitlines() == ["[b'', b''] b'chunk' b''"]


def test_no_chunk_overtakes_those_that_wait_for_a_client() -> None:
    script = (
        CONNECTIONS
        + """
    slow, quick = connect(), connect()
    fill = b"-" * 300
    full = 0
    while slow[0].buffered == 0:
        chunk_of(fill).write(0, 2)
        full += len(fill)
        received(quick[1])
    check_array()
    assert slow[0].write_fd == -1
    overtaken = chunk_of(b"A")  # made while the client is full, written when it no longer is
    got = b""
    while len(got) < full:
        got += slow[1].recv(1 << 20)
        gevent.sleep(0.01)
    assert slow[0].buffered == 0
    check_array()
    overtaken.write(0, 2)
    chunk_of(b"B").write(0, 2)
    print(slow[1].recv(10), received(quick[1]), slow[0].write_fd != -1)
    """
    )
    assert patched(script).splitlines() == ["b'AB' b'AB' True"]
