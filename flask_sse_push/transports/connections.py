"""All hijacked connections of one worker process, and the greenlet that watches them."""

from __future__ import annotations

import select
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import gevent
from gevent import monkey

from ..hub.stream import Stream
from .hijacked_socket import Begin, close_descriptor, detach

if TYPE_CHECKING:
    from .hijack import HijackedStream

#: Descriptors looked at in one go.
MAX_EVENTS = 1000


_WATCHED = select.EPOLLIN | select.EPOLLRDHUP


# gevent's patching hides epoll; this one is only ever polled without waiting.
_epoll = cast("type[select.epoll]", monkey.get_original("select", "epoll"))


class ConnectionTable:
    """All hijacked connections of one worker process, and the greenlet that looks after them."""

    def __init__(self, leave: Callable[[Stream], None]) -> None:
        self._leave = leave
        self._epoll = _epoll()
        self._by_fd: dict[int, HijackedStream] = {}
        self._watcher = gevent.get_hub().loop.io(self._epoll.fileno(), 1)

    def start(self) -> None:
        """Begins to look after connections. Switches to other greenlets."""
        threading.Thread(target=self._attend, name="flask-sse-push-lines", daemon=True).start()

    def add(self, stream: HijackedStream, client: Any, begin: Begin | None) -> int:
        """Takes the descriptor of `client`; see `take_over`."""
        fd = detach(client, begin)
        self._by_fd[fd] = stream
        self._epoll.register(fd, _WATCHED)
        return fd

    def want_room(self, fd: int, wanted: bool) -> None:
        """Tells the sink when its client can take more."""
        self._epoll.modify(fd, _WATCHED | select.EPOLLOUT if wanted else _WATCHED)

    def close(self, stream: HijackedStream, fd: int) -> None:
        """Closes the connection that `sink` has let go of, and counts the stream as gone."""
        if self._by_fd.pop(fd, None) is not None:
            close_descriptor(fd)  # leaves the epoll by itself
            self._leave(stream)

    def _attend(self) -> None:
        hub = gevent.get_hub()
        while True:
            hub.wait(self._watcher)
            ready = [(self._by_fd.get(fd), fd, events) for fd, events in self._epoll.poll(0, MAX_EVENTS)]
            for stream, fd, events in ready:
                # A close may switch to others, and the number be a new connection's when it is its turn.
                if stream is not None and self._by_fd.get(fd) is stream:
                    self._look(stream, fd, events)
            gevent.sleep(0)

    def _look(self, stream: HijackedStream, fd: int, events: int) -> None:
        if events & (select.EPOLLHUP | select.EPOLLERR) or (events & _WATCHED and not stream.swallow(fd)):
            stream.close()
        elif events & select.EPOLLOUT:
            stream.flush()
