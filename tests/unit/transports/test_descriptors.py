"""Who gets a chunk: those of the moment at which it was made, by descriptors that are still theirs."""

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

    def is_stuck(self, now: float) -> bool:
        return False

    def cut(self) -> None:
        raise AssertionError("nobody is cut")


def test_a_chunk_goes_to_those_who_were_there_when_it_was_made() -> None:
    group = Group(("a",), Client)
    ada, bob, eve = Client("ada"), Client("bob"), Client("eve")
    for client in (ada, bob):
        group.add(client)
    (first,) = group.flush(0.0, {}, b"first")
    group.remove(ada)
    group.add(eve)
    (second,) = group.flush(0.0, {}, b"second")
    for delivery in (first, second):
        delivery.write(0, len(delivery.recipients))
    assert (ada.got, bob.got, eve.got) == ([b"first"], [b"first", b"second"], [b"second"])


def test_as_long_as_nobody_comes_or_goes_no_event_copies_the_audience() -> None:
    group = Group(("a",), Client)
    group.add(Client("ada"))
    first, second = (group.flush(0.0, {}, b"x")[0] for _ in range(2))
    assert first.recipients is second.recipients
    group.add(Client("bob"))
    group.add(Client("eve"))
    assert len(first.recipients) == 1
    assert len(group.recipients) == 3


LINES = (
    STREAMS
    + """
    from flask_sse_push.hub.group import Group
    left = []
    group = Group(("a",), hijack.RawStream)
    transports = Transports(Settings(max_buffer=1000), lambda stream: left.append(stream) or leave(stream))
    leave = group.remove

    def line():
        client, other = gevent.socket.socketpair()
        other.settimeout(5)
        there = {"gunicorn.socket": client, "SERVER_PROTOCOL": "HTTP/1.0"}
        stream = transports.stream(there, "c", None, ("a",))
        stream.join()
        group.add(stream)
        return stream, other

    def made(chunk):
        return group.flush(0.0, {}, chunk)[0]

    def waiting(other):
        other.setblocking(False)
        try:
            return other.recv(1 << 20)
        except BlockingIOError:
            return b""
        finally:
            other.settimeout(5)

    def agree():
        assert list(group.recipients.fds) == [stream.fd for stream in group.streams]
    """
)


def test_a_number_that_became_anothers_in_the_middle_of_a_chunk_is_not_written_to() -> None:
    """An app that hears of the end of one stream may let others run: one leaves, and another comes."""
    script = (
        LINES
        + """
    one, two, three = line(), line(), line()
    number = two[0].fd
    comers = []
    def leave(stream):
        group.remove(stream)
        if stream is one[0]:
            two[0].cut()
            for _ in range(4):
                comers.extend(gevent.socket.socketpair())
            assert number in [comer.fileno() for comer in comers]
    one[1].close()
    chunk = made(b"x" * 2000)
    chunk.write(0, len(chunk.recipients))
    assert left == [one[0], two[0]], left
    print(b"".join(waiting(comer) for comer in comers), len(waiting(three[1])))
    agree()
    """
    )
    assert patched(script).splitlines() == ["b'' 2000"]


def test_a_number_that_became_anothers_before_the_chunk_was_written_is_not_written_to() -> None:
    script = (
        LINES
        + """
    one, two = line(), line()
    number = one[0].fd
    chunk = made(b"chunk")
    three = line()  # from here on the group has another recipients than the chunk
    one[0].cut()
    comers = gevent.socket.socketpair()
    assert number in [comer.fileno() for comer in comers]
    chunk.write(0, len(chunk.recipients))
    print([waiting(comer) for comer in comers], waiting(two[1]), waiting(three[1]))
    agree()
    """
    )
    assert patched(script).splitlines() == ["[b'', b''] b'chunk' b''"]


def test_what_waits_for_a_client_is_not_overtaken() -> None:
    script = (
        LINES
        + """
    slow, quick = line(), line()
    fill = b"-" * 300
    full = 0
    while slow[0].buffered == 0:
        made(fill).write(0, 2)
        full += len(fill)
        waiting(quick[1])
    agree()
    assert slow[0].fd == -1
    overtaken = made(b"A")  # made while the client is full, written when it no longer is
    got = b""
    while len(got) < full:
        got += slow[1].recv(1 << 20)
        gevent.sleep(0.01)
    assert slow[0].buffered == 0
    agree()
    overtaken.write(0, 2)
    made(b"B").write(0, 2)
    print(slow[1].recv(10), waiting(quick[1]), slow[0].fd != -1)
    """
    )
    assert patched(script).splitlines() == ["b'AB' b'AB' True"]
