"""How the bytes of a stream reach its client, and which way a request can take."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..config import Settings
from ..errors import ConfigError
from ..sink import Sink
from .base import StreamSink, stream
from .generator import GeneratorSink

if TYPE_CHECKING:
    from .hijack import HijackSink, Lines

logger = logging.getLogger(__name__)

#: Characters kept of what a client calls itself.
MAX_AGENT = 300


class Transports:
    """Makes the sinks of one worker process: hijacking where that works, by generator elsewhere.

    :param leave: told of each hijacked stream that has ended.
    """

    def __init__(self, settings: Settings, leave: Callable[[Sink], None]) -> None:
        self._settings = settings
        self._wanted = settings.transport
        self._leave = leave
        self._rehearsed = False
        self._lines: Lines | None = None  # None: hijacking does not work here
        self._kind: Callable[..., type[HijackSink] | None] = lambda environ, client: None

    def sink(
        self, environ: Mapping[str, Any], connection: str, user_id: str | None, channels: tuple[str, ...]
    ) -> StreamSink:
        """A sink for the request of `environ`, which tells who the client is.

        :raises ConfigError: when SSE_PUSH_TRANSPORT demands what the request's server cannot do.
        """
        sink = self._sink(environ, connection, user_id, channels)
        agent = environ.get("HTTP_USER_AGENT")
        sink.address = environ.get("REMOTE_ADDR")
        sink.agent = agent and sys.intern(agent[:MAX_AGENT])  # few browsers, many streams
        return sink

    def _sink(
        self, environ: Mapping[str, Any], connection: str, user_id: str | None, channels: tuple[str, ...]
    ) -> StreamSink:
        client = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
        if self._wanted != "generator":
            if not self._rehearsed and type(client).__module__.startswith("gevent."):
                self._rehearse()
            kind = self._kind(environ, client)
            if kind is not None and self._lines is not None:
                return kind(connection, user_id, channels, self._settings, client, self._lines)
        if self._wanted == "hijack":
            raise ConfigError(
                "SSE_PUSH_TRANSPORT",
                self._wanted,
                "auto or generator here: this request came over no plain socket of gunicorn's gevent worker",
            )
        return GeneratorSink(connection, user_id, channels, self._settings, client)

    def _rehearse(self) -> None:
        from . import hijack

        self._rehearsed = True  # nothing from here to the last line switches to another request
        if hijack.rehearse():
            self._lines, self._kind = hijack.Lines(self._leave), hijack.kind
            self._lines.start()
        else:
            logger.warning("this gevent's sockets cannot be taken over: streams go by generator")


__all__ = ["StreamSink", "Transports", "stream"]
