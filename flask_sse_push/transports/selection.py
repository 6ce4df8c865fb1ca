"""Chooses the transport for each request."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from ..brokers import forks
from ..config import Settings
from ..errors import ConfigError
from ..hub.stream import Stream
from .base import Transport, TransportStream
from .generator import GeneratorTransport
from .hijack import HijackTransport

#: All transports, the best first. The key is the value of SSE_PUSH_TRANSPORT that demands the transport. To
#: add a transport, write a module with a class that fits `base.Transport`, and add a row.
TRANSPORTS: Mapping[str, Callable[[Callable[[Stream], None]], Transport]] = {
    "hijack": HijackTransport,
    "generator": GeneratorTransport,
}

#: At most this many characters of a User-Agent are kept.
MAX_AGENT = 300


class Transports:
    """Makes the streams of one worker process.

    :param leave: called with each hijacked stream that has ended.
    """

    def __init__(self, settings: Settings, leave: Callable[[Stream], None]) -> None:
        self._settings = settings
        self._transports = [
            make(leave) for name, make in TRANSPORTS.items() if settings.transport in ("auto", name)
        ]

    def stream(
        self,
        environ: Mapping[str, Any],
        connection: str,
        user_id: str | None,
        channels: tuple[str, ...],
        poll: float | None = None,
    ) -> TransportStream:
        """Returns a stream for a request, made by the first transport that can serve the request.

        :param environ: the WSGI environment of the request.
        :param poll: after how many seconds without an event a short stream ends; None for other streams.
        :raises ConfigError: if the transport that SSE_PUSH_TRANSPORT demands cannot serve the request.
        """
        client = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
        if forks.parents_sockets and client is not None:
            forks.leave_to_parent(client)
        for transport in self._transports:
            make = transport.factory(environ, client, poll is not None)
            if make is not None:
                stream = make(connection, user_id, channels, self._settings, client)
                stream.poll = poll
                agent = environ.get("HTTP_USER_AGENT")
                stream.address = environ.get("REMOTE_ADDR")
                stream.agent = agent and sys.intern(agent[:MAX_AGENT])  # many streams share one string
                return stream
        needed = self._transports[0].needs
        expected = f"auto or generator here: this request did not come over {needed}"
        raise ConfigError("SSE_PUSH_TRANSPORT", self._settings.transport, expected)
