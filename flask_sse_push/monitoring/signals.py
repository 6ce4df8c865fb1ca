"""Blinker signals that an app can connect to. The sender of each signal is the Flask app.

Each receiver runs in a thread of its own (a greenlet on a gevent worker), in an app context, outside any
request. Its calls come one after another, in the order of the events. What a receiver raises is counted and
logged, and goes no further.
"""

from __future__ import annotations

from typing import Any

from blinker import NamedSignal, Namespace
from flask import Flask, current_app

from ..hub.listener import StreamListener
from ..hub.stream import Stream
from . import receivers

_signals = Namespace()

#: Sent when a stream was opened, with `connection`, `user_id` and `channels`.
stream_opened = _signals.signal("stream-opened")
#: Sent when a stream was closed, with `connection`, `user_id` and `channels`.
stream_closed = _signals.signal("stream-closed")
#: Sent when a stream lost events for good and gets `sse.reset`, with `connection`, `user_id` and `channels`.
history_lost = _signals.signal("history-lost")
#: Sent by `sse.publish` when an event was stored, with `channel` (as passed to `publish`), `type` and
#: `cursor`. No other method sends this signal. The receivers run soon after `publish` has returned.
event_published = _signals.signal("event-published")


def send(signal: NamedSignal, **facts: Any) -> None:
    """Sends a signal of the current app; see `receivers.send`."""
    receivers.send(current_app._get_current_object(), signal, **facts)  # type: ignore[attr-defined]


class StreamSignals(StreamListener):
    """Sends the signals about the streams of one app. Does nothing if a signal has no receivers."""

    def __init__(self, app: Flask) -> None:
        self._app = app

    def opened(self, stream: Stream) -> None:
        if stream_opened.receivers:
            self._send(stream_opened, stream)

    def closed(self, stream: Stream) -> None:
        if stream_closed.receivers:
            self._send(stream_closed, stream)

    def lost(self, stream: Stream) -> None:
        if history_lost.receivers:
            self._send(history_lost, stream)

    def _send(self, signal: NamedSignal, stream: Stream) -> None:
        receivers.send(
            self._app,
            signal,
            connection=stream.connection,
            user_id=stream.user_id,
            channels=stream.channels,
        )
