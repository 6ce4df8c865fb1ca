"""The hijack transport: the socket is taken from gunicorn's gevent worker once the stream is live.

gunicorn writes status line and headers, the first chunk of the body goes out with them, and it is done with
the request: it frees the greenlet and the place in `worker_connections`. The connection lives on as a
descriptor that the dispatcher writes to.
One epoll watches all of them for clients that leave and for slow ones that can take more.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, cast

import gevent
import gevent.socket
from gevent import monkey

from ..config import Settings
from ..drain import close_frame
from ..sink import Sink
from .base import StreamSink
from .hijack_audience import HijackAudience

#: The descriptor of a sink that cannot be written to directly: the write fails and takes the longer way.
DETOUR = -1
#: Bytes a client may send after its request; a well-behaved one sends none.
MAX_SENT = 65_536
#: Descriptors looked at in one go.
MAX_EVENTS = 1000

#: What ends the head of a response.
HEAD_END = b"\r\n\r\n"

#: Takes what a server would have sent.
Begin = Callable[[bytes], None]

_WATCHED = select.EPOLLIN | select.EPOLLRDHUP

# gevent's patching hides epoll; this one is only ever polled without waiting.
_epoll = cast("type[select.epoll]", monkey.get_original("select", "epoll"))
# gevent's close looks for watchers of the descriptor; ours has none.
_close = monkey.get_original("os", "close")


class Lines:
    """All hijacked connections of one worker process, and the greenlet that looks after them."""

    def __init__(self, leave: Callable[[Sink], None]) -> None:
        self._leave = leave
        self._epoll = _epoll()
        self._by_fd: dict[int, HijackSink] = {}
        self._watcher = gevent.get_hub().loop.io(self._epoll.fileno(), 1)

    def start(self) -> None:
        """Begins to look after connections. Switches to other greenlets."""
        threading.Thread(target=self._attend, name="flask-sse-push-lines", daemon=True).start()

    def add(self, sink: HijackSink, client: Any, begin: Begin | None) -> int:
        """Takes the descriptor of `client`; see `take_over`."""
        fd = take_over(client, begin)
        self._by_fd[fd] = sink
        self._epoll.register(fd, _WATCHED)
        return fd

    def want_room(self, fd: int, wanted: bool) -> None:
        """Tells the sink when its client can take more."""
        self._epoll.modify(fd, _WATCHED | select.EPOLLOUT if wanted else _WATCHED)

    def close(self, sink: HijackSink, fd: int) -> None:
        """Closes the connection that `sink` has let go of, and counts the stream as gone."""
        if self._by_fd.pop(fd, None) is not None:
            _close(fd)  # leaves the epoll by itself
            self._leave(sink)

    def _attend(self) -> None:
        hub = gevent.get_hub()
        while True:
            hub.wait(self._watcher)
            ready = [(self._by_fd.get(fd), fd, events) for fd, events in self._epoll.poll(0, MAX_EVENTS)]
            for sink, fd, events in ready:
                # A close may switch to others, and the number be a new connection's when it is its turn.
                if sink is not None and self._by_fd.get(fd) is sink:
                    self._look(sink, fd, events)
            gevent.sleep(0)

    def _look(self, sink: HijackSink, fd: int, events: int) -> None:
        if events & (select.EPOLLHUP | select.EPOLLERR) or (events & _WATCHED and not sink.swallow(fd)):
            sink.close()
        elif events & select.EPOLLOUT:
            sink.flush()


class HijackSink(StreamSink):
    """One taken-over connection. Until it has joined, the response's generator serves it."""

    __slots__ = (
        "_backlog",
        "_ending",
        "_fd",
        "_first",
        "_headless",
        "_lines",
        "_sent",
        "_since",
        "_waiting",
        "fd",
    )

    holds_request = False
    audience = HijackAudience
    #: What ends the body.
    terminator = b""

    def __init__(
        self,
        connection: str,
        user_id: str | None,
        channels: tuple[str, ...],
        settings: Settings,
        client: Any,
        lines: Lines,
    ) -> None:
        super().__init__(connection, user_id, channels, settings, client)
        self._lines = lines
        self.fd = DETOUR  # where to write right away; see `_aim`
        self._fd = DETOUR  # the connection
        self._backlog: list[bytes] | None = None
        self._waiting = 0  # bytes in the backlog
        self._since = 0.0  # since when the client has taken nothing
        self._ending = False
        self._first: bytes | None = None  # the body's first chunk, which goes out with the head
        self._headless = False  # the head of the response has not been sent: everything waits for it
        self._sent = 0  # bytes the client sent

    @property
    def hijacked(self) -> bool:
        return self._client is None

    @property
    def buffered(self) -> int:
        return self._waiting if self._backlog else 0

    def carry(self, opening: bytes) -> bool:
        if self._begun:  # then the head has been sent
            return False
        self._first = self.opened(opening)
        return True

    def join(self) -> None:
        first, self._first = self._first, None
        if first is None:
            self.fd = self._fd = self._lines.add(self, self._client, None)
        else:
            self._fd = self._lines.add(self, self._client, self._begin)
            chunk = self.framed(first)
            self._backlog, self._waiting, self._headless = [chunk], len(chunk), True
            self._since = time.monotonic()
        self._client = None

    def _begin(self, sent: bytes) -> None:
        """Sends what has waited for the head of the response. `sent` is what gunicorn would send: the head;
        the end of a body whose head has gone before; or nothing, when there will be none of them."""
        self._headless = False
        head, end, _ = sent.partition(HEAD_END)
        if not sent or self._backlog is None:  # given up, or closed meanwhile
            self.close()
            return
        if sent.startswith(b"HTTP/"):
            self._backlog[0] = head + end + self._backlog[0]
            self._waiting += len(head) + len(end)
        self._send_waiting()
        if self._backlog is not None:
            self._lines.want_room(self._fd, True)

    def _aim(self, fd: int) -> None:
        """Changes where to write right away."""
        self.fd = fd
        HijackAudience.changes += 1
        if self.group is not None:
            cast("HijackAudience", self.group.audience).fds[self.place] = fd

    def write(self, chunk: bytes) -> None:
        try:
            sent = os.write(self.fd, chunk)
            if sent != len(chunk):
                self.keep(chunk[sent:])
        except OSError:
            self.write_late(chunk)

    def write_late(self, chunk: bytes) -> None:
        """Takes a chunk that could not be written: the client is slow, gone, or its stream has ended."""
        if self._fd == DETOUR or self._ending:
            return
        self.keep(chunk)
        if self._waiting > self._settings.max_buffer:
            # The client resumes from its cursor: dropping the line is what bounds the memory.
            self._drop_backlog()
            self.reason = "slow"
            self.end(close_frame("slow", reconnect=True, retry=self._settings.retry))

    def keep(self, rest: bytes) -> None:
        """Lets bytes wait until the client has room for them."""
        if self._backlog is None:
            self._backlog = []
            self._since = time.monotonic()
            self._aim(DETOUR)
            self._lines.want_room(self._fd, True)
        self._backlog.append(rest)
        self._waiting += len(rest)

    def _drop_backlog(self) -> None:
        """Drops what waits but for the rest of the chunk under way, without which the body would break."""
        if self.coding is not None:
            self.coding.whole = False
        if self._backlog:
            del self._backlog[1:]
            self._waiting = len(self._backlog[0])

    def flush(self) -> None:
        """Sends what waits, as far as the client takes it."""
        if not self._headless:
            self._send_waiting()
            if self.fd != DETOUR:
                self._lines.want_room(self.fd, False)

    def _send_waiting(self) -> None:
        backlog = self._backlog or []
        while backlog:
            try:
                sent = os.write(self._fd, backlog[0])
            except BlockingIOError:
                return
            except OSError:
                self.close()
                return
            self._since = time.monotonic()
            self._waiting -= sent
            if sent < len(backlog[0]):
                backlog[0] = backlog[0][sent:]
                return
            del backlog[0]
        self._backlog = None
        if self._ending:
            self.close()
        else:
            self._aim(self._fd)

    def end(self, frame: bytes) -> None:
        if not self.hijacked:
            super().end(frame)
            return
        if self._fd == DETOUR or self._ending:
            return
        if self.coding is not None:
            self.coding.freeze()
            frame = self.coding.last(frame)
        self.keep((self.framed(frame) if frame else b"") + self.terminator)
        self._ending = True
        self.flush()

    def swallow(self, fd: int) -> bool:
        """Reads what the client sent and forgets it; False when it has left or sends too much."""
        try:
            data = os.read(fd, 4096)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self._sent += len(data)
        return bool(data) and self._sent <= MAX_SENT

    def is_stuck(self, now: float) -> bool:
        if not self.hijacked:
            return super().is_stuck(now)
        return self._backlog is not None and now - self._since > self._settings.write_timeout

    def cut(self) -> None:
        if self.hijacked:
            self.close()
        else:
            super().cut()

    def close(self) -> None:
        """Breaks the connection off. A chunk on its way meets no number that may be another's by then."""
        fd, self._fd = self._fd, DETOUR
        self._backlog = None
        if fd != DETOUR:
            self._aim(DETOUR)
            self._lines.close(self, fd)


class ChunkedSink(HijackSink):
    """A connection whose body has HTTP/1.1 chunks."""

    __slots__ = ()

    terminator = b"0\r\n\r\n"

    @staticmethod
    def framed(frames: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(frames), frames)


class RawSink(HijackSink):
    """A connection whose body ends with it: HTTP/1.0."""

    __slots__ = ()


class Seized(gevent.socket.socket):
    """What gunicorn is left with of a connection that was taken over. The first that is sent, the head of the
    response, goes to whom the connection belongs now; then it is as if the client had left, which gunicorn
    passes over quietly."""

    __slots__ = ()

    def sendall(self, data: Any, flags: int = 0) -> None:
        begin = _beginnings.pop(id(self), None)
        if begin is not None:
            begin(bytes(data))
            if data.startswith(b"HTTP/"):
                return
        raise BrokenPipeError(errno.EPIPE, "the connection was taken over")

    def close(self) -> None:
        begin = _beginnings.pop(id(self), None)
        if begin is not None:
            begin(b"")


#: Who is given the head of a response, by the id of the socket that gunicorn holds until it has closed it.
_beginnings: dict[int, Begin] = {}


def take_over(client: Any, begin: Begin | None) -> int:
    """Takes the descriptor out of a gevent socket, which is `Seized` afterwards.

    The number is kept (`detach`): a duplicate would stay registered with gevent's loop on the same open file,
    and each stream that ends would make it register all descriptors anew.

    :param begin: called once with what is sent next, or with nothing when that never comes. None: the head
        has been sent.
    """
    fd: int = client.detach()
    client.__class__ = Seized
    if begin is not None:
        _beginnings[id(client)] = begin
    return fd


def rehearse() -> bool:
    """Takes a socket over as streams do, and sees whether that gave what is expected."""
    ours, theirs = gevent.socket.socketpair()
    fd, told = DETOUR, list[bytes]()
    try:
        before = ours.fileno()
        fd = take_over(ours, told.append)
        os.write(fd, b"x")
        ours.sendall(b"HTTP/")
        if fd != before or theirs.recv(1) != b"x" or told != [b"HTTP/"]:
            return False
        ours.sendall(b"x")
    except BrokenPipeError:
        return True
    except (OSError, AttributeError, TypeError):
        return False
    finally:
        ours.close()
        theirs.close()
        with contextlib.suppress(OSError):
            _close(fd)
    return False


_KINDS = {"HTTP/1.1": ChunkedSink, "HTTP/1.0": RawSink}


def kind(environ: Mapping[str, Any], client: Any) -> type[HijackSink] | None:
    """How to take over the request's connection; None when it has TLS of ours or another protocol."""
    return _KINDS.get(environ["SERVER_PROTOCOL"]) if type(client) is gevent.socket.socket else None
