"""How the bytes of a stream reach its client, and which way a request can take."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..config import Settings
from ..errors import ConfigError
from ..hub.stream import Stream
from .base import TransportStream
from .generator import GeneratorStream

if TYPE_CHECKING:
    from .connections import ConnectionTable
    from .hijack import HijackedStream

logger = logging.getLogger(__name__)

#: Characters kept of what a client calls itself.
MAX_AGENT = 300


class Transports:
    """Makes the sinks of one worker process: hijacking where that works, by generator elsewhere.

    :param leave: told of each hijacked stream that has ended.
    """

    def __init__(self, settings: Settings, leave: Callable[[Stream], None]) -> None:
        self._settings = settings
        self._wanted = settings.transport
        self._leave = leave
        self._rehearsed = False
        self._connections: ConnectionTable | None = None  # None: hijacking does not work here
        self._kind: Callable[..., type[HijackedStream] | None] = lambda environ, client: None

    def stream(
        self, environ: Mapping[str, Any], connection: str, user_id: str | None, channels: tuple[str, ...]
    ) -> TransportStream:
        """A sink for the request of `environ`, which tells who the client is.

        :raises ConfigError: when SSE_PUSH_TRANSPORT demands what the request's server cannot do.
        """
        stream = self._stream(environ, connection, user_id, channels)
        agent = environ.get("HTTP_USER_AGENT")
        stream.address = environ.get("REMOTE_ADDR")
        stream.agent = agent and sys.intern(agent[:MAX_AGENT])  # few browsers, many streams
        return stream

    def _stream(
        self, environ: Mapping[str, Any], connection: str, user_id: str | None, channels: tuple[str, ...]
    ) -> TransportStream:
        client = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
        if self._wanted != "generator":
            if not self._rehearsed and type(client).__module__.startswith("gevent."):
                self._rehearse()
            kind = self._kind(environ, client)
            if kind is not None and self._connections is not None:
                return kind(connection, user_id, channels, self._settings, client, self._connections)
        if self._wanted == "hijack":
            raise ConfigError(
                "SSE_PUSH_TRANSPORT",
                self._wanted,
                "auto or generator here: this request came over no plain socket of gunicorn's gevent worker",
            )
        return GeneratorStream(connection, user_id, channels, self._settings, client)

    def _rehearse(self) -> None:
        from . import hijack, hijacked_socket
        from .connections import ConnectionTable

        self._rehearsed = True  # nothing from here to the last line switches to another request
        if hijacked_socket.self_test():
            self._connections, self._kind = ConnectionTable(self._leave), hijack.stream_class
            self._connections.start()
        else:
            logger.warning("this gevent's sockets cannot be taken over: streams go by generator")
