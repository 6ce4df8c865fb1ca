"""How the bytes of a stream reach its client, and which way a request can take."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..config import Settings
from ..errors import ConfigError
from ..sink import Sink
from .base import StreamSink, stream
from .generator import GeneratorSink

if TYPE_CHECKING:
    from .hijack import Lines

logger = logging.getLogger(__name__)


class Transports:
    """Makes the sinks of one worker process: hijacking where that works, by generator elsewhere.

    :param leave: told of each hijacked stream that has ended.
    """

    def __init__(self, settings: Settings, leave: Callable[[Sink], None]) -> None:
        self._settings = settings
        self._leave = leave
        self._lines: Lines | None = None
        self._usable: bool | None = None  # whether hijacking works here; None: not tried yet

    def sink(
        self, environ: Mapping[str, Any], connection: str, user_id: str | None, channels: tuple[str, ...]
    ) -> StreamSink:
        """A sink for the request of `environ`.

        :raises ConfigError: when SSE_PUSH_TRANSPORT demands what the request's server cannot do.
        """
        client = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
        kind = self._settings.transport
        if kind != "generator" and self._can_hijack(environ, client):
            from . import hijack

            if self._lines is None:
                self._lines = hijack.Lines(self._leave)
            chunked = environ["SERVER_PROTOCOL"] == "HTTP/1.1"
            make = hijack.ChunkedSink if chunked else hijack.RawSink
            return make(connection, user_id, channels, self._settings, client, self._lines)
        if kind == "hijack":
            raise ConfigError(
                "SSE_PUSH_TRANSPORT",
                kind,
                "auto or generator here: this request came over no plain socket of gunicorn's gevent worker",
            )
        return GeneratorSink(connection, user_id, channels, self._settings, client)

    def _can_hijack(self, environ: Mapping[str, Any], client: Any) -> bool:
        if self._usable is False or not type(client).__module__.startswith("gevent."):
            return False
        from . import hijack

        if self._usable is None:
            self._usable = hijack.rehearse()
            if not self._usable:
                logger.warning("this gevent's sockets cannot be taken over: streams go by generator")
        return self._usable and hijack.is_plain(environ, client)


__all__ = ["StreamSink", "Transports", "stream"]
