"""The hijack transport: serves requests by taking the socket from gunicorn's gevent worker.

Nothing here imports gevent before a request comes over one of its sockets.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..config import Settings
from ..hub.stream import Stream

if TYPE_CHECKING:
    from .connections import ConnectionTable
    from .hijacked_stream import HijackedStream

logger = logging.getLogger(__name__)


class HijackTransport:
    """Serves requests whose client is connected by a plain gevent socket.

    :param leave: called with each hijacked stream that has ended.
    """

    needs = "a plain socket of gunicorn's gevent worker"

    def __init__(self, settings: Settings, leave: Callable[[Stream], None]) -> None:
        self._settings = settings
        self._leave = leave
        self._tested = False
        self._connections: ConnectionTable | None = None  # None: hijacking does not work here, or is untested
        self._stream_class: Callable[..., type[HijackedStream] | None] = lambda environ, client: None

    def stream(
        self,
        environ: Mapping[str, Any],
        client: Any,
        connection: str,
        user_id: str | None,
        channels: tuple[str, ...],
    ) -> HijackedStream | None:
        """See `base.Transport`. The first request over a gevent socket also starts the transport."""
        if not self._tested and type(client).__module__.startswith("gevent."):
            self._start()
        if self._connections is None or (stream_class := self._stream_class(environ, client)) is None:
            return None
        return stream_class(connection, user_id, channels, self._settings, client, self._connections)

    def _start(self) -> None:
        """Tests once whether this version of gevent allows hijacking; if so, watches the connections."""
        from . import hijacked_socket, hijacked_stream
        from .connections import ConnectionTable

        self._tested = True  # up to `start`, nothing switches to another request
        if hijacked_socket.self_test():
            self._stream_class = hijacked_stream.stream_class
            self._connections = ConnectionTable(self._leave)
            self._connections.start()
        else:
            logger.warning("this gevent's sockets cannot be hijacked: streams use the generator transport")
