"""The hijack transport: takes a request's socket from gunicorn's gevent worker and writes to it directly.

This module imports gevent only when a request arrives over a gevent socket.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from ..hub.stream import Stream
from .base import StreamFactory

if TYPE_CHECKING:
    from .connections import ConnectionTable

logger = logging.getLogger(__name__)


class HijackTransport:
    """Serves requests that arrive over a gevent socket without TLS.

    :param leave: called with each hijacked stream that has ended.
    """

    def __init__(self, leave: Callable[[Stream], None]) -> None:
        self.needs = "a plain socket of gunicorn's gevent worker"
        self._leave = leave
        self._tested = False
        self._connections: ConnectionTable | None = None  # None until the first request over a gevent socket
        # gevent's socket class, and its subclass for sockets that are being handed over; empty if hijacking
        # does not work.
        self._socket_classes: tuple[type, ...] = ()
        # By HTTP version; empty if hijacking does not work. The second dict makes short streams.
        self._factories: dict[str, StreamFactory] = {}
        self._short_factories: dict[str, StreamFactory] = {}

    def factory(self, environ: Mapping[str, Any], client: Any, short: bool = False) -> StreamFactory | None:
        """See `base.Transport.factory`. The first request over a gevent socket also starts the transport."""
        if not self._tested and type(client).__module__.startswith("gevent."):
            self._tested = True  # no other request can run before `connections.start()`
            try:
                self._start()
            except Exception as error:
                self._socket_classes = ()
                self.needs = f"a socket that can be hijacked. Here no socket can: {error}"
                logger.warning("streams use the generator transport; sockets cannot be hijacked: %s", error)
            except BaseException:  # this request was interrupted, for example by a gevent.Timeout
                self._tested = bool(self._socket_classes)
                raise
        if type(client) not in self._socket_classes:  # TLS sockets have another class
            return None
        if short:
            return self._short(environ["SERVER_PROTOCOL"])
        return self._factories.get(environ["SERVER_PROTOCOL"])

    def _short(self, protocol: str) -> StreamFactory | None:
        if not self._short_factories and self._connections is not None:
            from .short_hijacked_stream import ShortChunkedStream, ShortRawStream

            self._short_factories["HTTP/1.1"] = partial(ShortChunkedStream, connections=self._connections)
            self._short_factories["HTTP/1.0"] = partial(ShortRawStream, connections=self._connections)
        return self._short_factories.get(protocol)

    def _start(self) -> None:
        """Starts to watch connections.

        :raises Exception: if this system, Python or gevent lacks what hijacking needs, such as `select.epoll`
            on macOS. The message says what is missing.
        """
        import gevent.socket

        from .connections import ConnectionTable
        from .handover import WatchedSocket
        from .hijacked_socket import self_test
        from .hijacked_stream import ChunkedStream, RawStream

        if not self_test():
            raise NotImplementedError("this version of gevent does not let other code take its sockets")
        connections = self._connections = ConnectionTable(self._leave)
        self._factories["HTTP/1.1"] = partial(ChunkedStream, connections=connections)
        self._factories["HTTP/1.0"] = partial(RawStream, connections=connections)
        self._socket_classes = gevent.socket.socket, WatchedSocket
        connections.start()
