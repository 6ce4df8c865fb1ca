"""Signals (blinker) an app may connect to. The sender is the app."""

from __future__ import annotations

from typing import Any

from blinker import NamedSignal, Namespace
from flask import Flask

from ..hub.listener import StreamListener
from ..hub.stream import Stream

_signals = Namespace()

#: A stream began; with `connection`, `user_id`, `channels`.
stream_opened = _signals.signal("stream-opened")
#: A stream ended; with `connection`, `user_id`, `channels`.
stream_closed = _signals.signal("stream-closed")
#: Events were lost for a stream: it was told `sse.reset`; with `connection`, `user_id`, `channels`.
history_lost = _signals.signal("history-lost")
#: `sse.publish` stored an event; with `channel` (as it was given), `type`, `cursor`. Sent by no other method.
event_published = _signals.signal("event-published")


class StreamSignals(StreamListener):
    """Sends the signals of one app's streams, where somebody listens."""

    def __init__(self, app: Flask) -> None:
        self._app = app

    def opened(self, stream: Stream) -> None:
        self._send(stream_opened, stream)

    def closed(self, stream: Stream) -> None:
        self._send(stream_closed, stream)

    def lost(self, stream: Stream) -> None:
        self._send(history_lost, stream)

    def _send(self, signal: NamedSignal, stream: Stream) -> None:
        if signal.receivers:
            facts: dict[str, Any] = {
                "connection": stream.connection,
                "user_id": stream.user_id,
                "channels": stream.channels,
            }
            signal.send(self._app, **facts)
