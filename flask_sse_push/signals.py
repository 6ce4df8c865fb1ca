"""Signals (blinker) an app may connect to. The sender is the app."""

from __future__ import annotations

from typing import Any

from blinker import NamedSignal, Namespace
from flask import Flask

from .observer import Observer
from .sink import Sink

_signals = Namespace()

#: A stream began; with `connection`, `user_id`, `channels`.
stream_opened = _signals.signal("stream-opened")
#: A stream ended; with `connection`, `user_id`, `channels`.
stream_closed = _signals.signal("stream-closed")
#: Events were lost for a stream: it was told `sse.reset`; with `connection`, `user_id`, `channels`.
history_lost = _signals.signal("history-lost")
#: `sse.publish` stored an event; with `channel` (as it was given), `type`, `cursor`. Sent by no other method.
event_published = _signals.signal("event-published")


class StreamSignals(Observer):
    """Sends the signals of one app's streams, where somebody listens."""

    def __init__(self, app: Flask) -> None:
        self._app = app

    def opened(self, sink: Sink) -> None:
        self._send(stream_opened, sink)

    def closed(self, sink: Sink) -> None:
        self._send(stream_closed, sink)

    def lost(self, sink: Sink) -> None:
        self._send(history_lost, sink)

    def _send(self, signal: NamedSignal, sink: Sink) -> None:
        if signal.receivers:
            facts: dict[str, Any] = {
                "connection": sink.connection,
                "user_id": sink.user_id,
                "channels": sink.channels,
            }
            signal.send(self._app, **facts)
