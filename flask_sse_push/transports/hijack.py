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

    needs = "a plain socket of gunicorn's gevent worker"

    def __init__(self, leave: Callable[[Stream], None]) -> None:
        self._leave = leave
        self._tested = False
        self._socket_class: type | None = None  # gevent's socket class if hijacking works; else None
        self._factories: dict[str, StreamFactory] = {}  # by HTTP version; empty if hijacking does not work

    def factory(self, environ: Mapping[str, Any], client: Any) -> StreamFactory | None:
        """See `base.Transport.factory`. The first request over a gevent socket also starts the transport."""
        if not self._tested and type(client).__module__.startswith("gevent."):
            self._start()
        if type(client) is not self._socket_class:  # TLS sockets have another class
            return None
        return self._factories.get(environ["SERVER_PROTOCOL"])

    def _start(self) -> None:
        """Tests whether this version of gevent allows hijacking. If so, starts to watch connections."""
        import gevent.socket

        from .connections import ConnectionTable
        from .hijacked_socket import self_test
        from .hijacked_stream import ChunkedStream, RawStream

        self._tested = True  # no other request can run before `connections.start()`
        if self_test():
            connections = ConnectionTable(self._leave)
            self._socket_class = gevent.socket.socket
            self._factories["HTTP/1.1"] = partial(ChunkedStream, connections=connections)
            self._factories["HTTP/1.0"] = partial(RawStream, connections=connections)
            connections.start()
        else:
            logger.warning("sockets of this gevent cannot be hijacked: streams use the generator transport")
