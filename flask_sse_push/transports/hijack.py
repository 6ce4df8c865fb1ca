"""The hijack transport: the socket is taken from gunicorn's gevent worker once the stream is live.

gunicorn has written status line and headers by then and is done with the request: it frees the greenlet and
the place in `worker_connections`. The connection lives on as a descriptor that the dispatcher writes to.
One epoll watches all of them for clients that leave and for slow ones that can take more.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import gevent
import gevent.socket
from gevent import monkey

from ..config import Settings
from ..drain import close_frame
from ..sink import Sink
from .base import StreamSink

#: The descriptor of a sink that cannot be written to directly: the write fails and takes the longer way.
DETOUR = -1
#: Bytes a client may send after its request; a well-behaved one sends none.
MAX_SENT = 65_536
#: Descriptors looked at in one go.
MAX_EVENTS = 1000

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
        gone, self._dead = socket.socketpair()
        gone.close()
        self._watcher = gevent.get_hub().loop.io(self._epoll.fileno(), 1)

    def start(self) -> None:
        """Begins to look after connections. Switches to other greenlets."""
        threading.Thread(target=self._attend, name="flask-sse-push-lines", daemon=True).start()

    def add(self, sink: HijackSink, client: socket.socket) -> int:
        """Takes the descriptor of `client`, which gunicorn is left holding a dead one for.

        The number is kept (`detach`): a duplicate would stay registered with gevent's loop on the same open
        file, and each stream that ends would make it register all descriptors anew.
        """
        fd = take_over(client, self._dead)
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

    __slots__ = ("_backlog", "_ending", "_fd", "_lines", "_sent", "_since", "_waiting", "fd")

    holds_request = False
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
        self.fd = DETOUR  # where to write right away
        self._fd = DETOUR  # the connection
        self._backlog: list[bytes] | None = None
        self._waiting = 0  # bytes in the backlog
        self._since = 0.0  # since when the client has taken nothing
        self._ending = False
        self._sent = 0  # bytes the client sent

    @property
    def hijacked(self) -> bool:
        return self._client is None

    @property
    def buffered(self) -> int:
        return self._waiting if self._backlog else 0

    def join(self) -> None:
        self.fd = self._fd = self._lines.add(self, self._client)
        self._client = None

    @classmethod
    def write_all(cls, sinks: Iterable[Sink], chunk: bytes) -> None:
        send, size = os.write, len(chunk)
        for sink in cast("Iterable[HijackSink]", sinks):
            try:
                sent = send(sink.fd, chunk)
                if sent != size:
                    sink.keep(chunk[sent:])
            except OSError:
                sink.write_late(chunk)

    def write(self, chunk: bytes) -> None:
        self.write_all((self,), chunk)

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
            self.fd = DETOUR
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
            self.fd = self._fd
            self._lines.want_room(self._fd, False)

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
        fd, self._fd, self.fd = self._fd, DETOUR, DETOUR
        self._backlog = None
        if fd != DETOUR:
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


def take_over(client: Any, dead: socket.socket) -> int:
    """Takes the descriptor out of a gevent socket, which holds a duplicate of `dead` afterwards.

    Writing to `dead` meets EPIPE, which gunicorn passes over quietly when it ends the response.
    """
    spare = os.dup(dead.fileno())  # first: it may fail, and then nothing has changed
    fd: int = client.detach()
    client.__init__(fileno=spare)
    return fd


def rehearse() -> bool:
    """Takes a socket over as `take_over` does, and sees whether that gave what is expected."""
    ours, theirs = gevent.socket.socketpair()
    gone, dead = socket.socketpair()
    gone.close()
    fd = DETOUR
    try:
        before = ours.fileno()
        fd = take_over(ours, dead)
        os.write(fd, b"x")
        if fd != before or theirs.recv(1) != b"x":
            return False
        ours.sendall(b"x")
    except BrokenPipeError:
        return True
    except (OSError, AttributeError, TypeError):
        return False
    finally:
        for each in (ours, theirs, dead):
            each.close()
        with contextlib.suppress(OSError):
            _close(fd)
    return False


_KINDS = {"HTTP/1.1": ChunkedSink, "HTTP/1.0": RawSink}


def kind(environ: Mapping[str, Any], client: Any) -> type[HijackSink] | None:
    """How to take over the request's connection; None when it has TLS of ours or another protocol."""
    return _KINDS.get(environ["SERVER_PROTOCOL"]) if type(client) is gevent.socket.socket else None
