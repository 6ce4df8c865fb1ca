"""The hijack transport: takes a request's socket from gunicorn's gevent worker and writes to it directly.

This module imports gevent only when a request arrives over a gevent socket.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ..hub.stream import Stream
from .base import StreamFactory

logger = logging.getLogger(__name__)


class HijackTransport:
    """Serves requests that arrive over a gevent socket without TLS.

    :param leave: called with each hijacked stream that has ended.
    """

    def __init__(self, leave: Callable[[Stream], None]) -> None:
        self.needs = "a plain socket of gunicorn's gevent worker"
        self._leave = leave
        self._tested = False
        # gevent's socket class, and its subclass for sockets that are being handed over; empty if hijacking
        # does not work.
        self._socket_classes: tuple[type, ...] = ()
        self._factories: dict[str, StreamFactory] = {}  # by HTTP version; empty if hijacking does not work

    def factory(self, environ: Mapping[str, Any], client: Any) -> StreamFactory | None:
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
        return self._factories.get(environ["SERVER_PROTOCOL"])

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
        connections = ConnectionTable(self._leave)
        self._factories["HTTP/1.1"] = partial(ChunkedStream, connections=connections)
        self._factories["HTTP/1.0"] = partial(RawStream, connections=connections)
        self._socket_classes = gevent.socket.socket, WatchedSocket
        connections.start()
