"""Chooses the transport for each request."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from ..config import Settings
from ..errors import ConfigError
from ..hub.stream import Stream
from .base import Transport, TransportStream
from .generator import GeneratorTransport
from .hijack import HijackTransport

#: All transports by the value of SSE_PUSH_TRANSPORT that demands them, the best first. To add a transport,
#: write a module with a class like these and add a row.
TRANSPORTS: Mapping[str, Callable[[Callable[[Stream], None]], Transport]] = {
    "hijack": HijackTransport,
    "generator": GeneratorTransport,
}

#: Characters kept of a client's User-Agent.
MAX_AGENT = 300


class Transports:
    """Makes the streams of one worker process.

    :param leave: called when a stream has ended whose response body had ended before.
    """

    def __init__(self, settings: Settings, leave: Callable[[Stream], None]) -> None:
        self._settings = settings
        self._transports = [
            make(leave) for name, make in TRANSPORTS.items() if settings.transport in ("auto", name)
        ]

    def stream(
        self, environ: Mapping[str, Any], connection: str, user_id: str | None, channels: tuple[str, ...]
    ) -> TransportStream:
        """Returns a stream of the first transport that can serve the request of `environ`.

        :raises ConfigError: when the transport that SSE_PUSH_TRANSPORT demands cannot serve the request.
        """
        client = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
        for transport in self._transports:
            make = transport.factory(environ, client)
            if make is not None:
                stream = make(connection, user_id, channels, self._settings, client)
                agent = environ.get("HTTP_USER_AGENT")
                stream.address = environ.get("REMOTE_ADDR")
                stream.agent = agent and sys.intern(agent[:MAX_AGENT])  # few browsers, many streams
                return stream
        needed = self._transports[0].needs
        expected = f"auto or generator here: this request did not come over {needed}"
        raise ConfigError("SSE_PUSH_TRANSPORT", self._settings.transport, expected)
