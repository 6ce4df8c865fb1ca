"""A table of all hijacked connections of one worker process, and the greenlet that watches them."""

from __future__ import annotations

import logging
import select
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import gevent
from gevent import monkey

from ..brokers import forks
from ..hub import background
from ..hub.stream import Stream
from .hijacked_socket import close_descriptor, detach

if TYPE_CHECKING:
    from .hijacked_stream import HijackedStream

logger = logging.getLogger(__name__)

#: At most this many connections are handled per call of `poll`.
MAX_EVENTS = 1000

_BROKEN = select.EPOLLHUP | select.EPOLLERR

# gevent hides `select.epoll`, because `poll` can block all greenlets. `_watch` calls `poll` with a timeout of
# 0, which never blocks.
_epoll = cast("type[select.epoll]", monkey.get_original("select", "epoll"))


class ConnectionTable:
    """Watches all hijacked connections with one epoll object.

    Notices when a client leaves, sends bytes, or can take more bytes.

    :param leave: called with each stream after its connection was closed.
    """

    def __init__(self, leave: Callable[[Stream], None]) -> None:
        self._leave = leave
        self._epoll = _epoll()
        self._by_fd: dict[int, HijackedStream] = {}
        self._watcher = gevent.get_hub().loop.io(self._epoll.fileno(), 1)
        forks.watch(self)

    def start(self) -> None:
        """Starts the greenlet that watches the connections. Switches to other greenlets."""
        background.start("connections", self._watch)

    def add(self, stream: HijackedStream, client: Any) -> int:
        """Takes the file descriptor out of the socket `client`, begins to watch it, and returns it."""
        fd = detach(client)
        self._epoll.register(fd, select.EPOLLIN)
        self._by_fd[fd] = stream
        return fd

    def watch(self, fd: int, *, readable: bool, writable: bool) -> None:
        """Sets which calls a connection causes. A broken connection always causes `HijackedStream.close`.

        :param readable: whether `discard_input` is called when the client has sent bytes or the end.
        :param writable: whether `flush` is called when the client can take more bytes.
        """
        self._epoll.modify(fd, readable * select.EPOLLIN | writable * select.EPOLLOUT)

    def close(self, stream: HijackedStream, fd: int) -> None:
        """Closes the connection of `stream`, then calls `leave` with the stream. May be called twice."""
        if self._by_fd.pop(fd, None) is not None:
            # Closing is not enough: a forked child may have a copy of the descriptor. The epoll object would
            # then go on to report the connection, also when `fd` belongs to another connection.
            self._epoll.unregister(fd)
            close_descriptor(fd)
            self._leave(stream)

    def after_fork(self) -> None:
        """See `forks.Part.after_fork`. The epoll object belongs to the parent too, so it must not change."""
        self._watcher.stop()
        self._epoll.close()
        for fd in self._by_fd:
            close_descriptor(fd)
        self._by_fd = {}

    def _watch(self) -> None:
        hub = gevent.get_hub()
        while True:
            hub.wait(self._watcher)
            ready = [(self._by_fd.get(fd), fd, events) for fd, events in self._epoll.poll(0, MAX_EVENTS)]
            for stream, fd, events in ready:
                # An earlier `_handle` may have switched greenlets. `fd` may now belong to another connection.
                if stream is not None and self._by_fd.get(fd) is stream:
                    self._try_to_handle(stream, fd, events)
            gevent.sleep(0)

    def _try_to_handle(self, stream: HijackedStream, fd: int, events: int) -> None:
        try:
            self._handle(stream, fd, events)
        except Exception:  # otherwise the next round would meet the same error, and no other connection
            logger.exception("serving the connection of stream %s failed; closing it", stream.connection)
            stream.cut()

    def _handle(self, stream: HijackedStream, fd: int, events: int) -> None:
        if events & _BROKEN or (events & select.EPOLLIN and not stream.discard_input(fd)):
            stream.close()
        elif events & select.EPOLLOUT:
            stream.flush()
