"""Signals (blinker) an app may connect to. The sender is the app."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from blinker import Namespace
from flask import Flask

from .sink import Sink

_signals = Namespace()

#: A stream began; with `connection`, `user_id`, `channels`.
stream_opened = _signals.signal("stream-opened")
#: A stream ended; with the same.
stream_closed = _signals.signal("stream-closed")
#: Events were lost for a stream: it was told `sse.reset`; with the same.
history_lost = _signals.signal("history-lost")
#: The app published an event; with `channel`, `type`, `cursor`.
event_published = _signals.signal("event-published")


def announced(body: Iterator[bytes], app: Flask, sink: Sink) -> Iterator[bytes]:
    """`body`, with the signals of its beginning and its end. Not a step more than `body` itself."""
    stream_opened.send(app, **_facts(sink))
    try:
        yield from body
    finally:
        stream_closed.send(app, **_facts(sink))


def tell_lost(app: Flask, sink: Sink) -> None:
    """Sends `history_lost`, when somebody listens."""
    if history_lost.receivers:
        history_lost.send(app, **_facts(sink))


def _facts(sink: Sink) -> dict[str, Any]:
    return {"connection": sink.connection, "user_id": sink.user_id, "channels": sink.channels}
