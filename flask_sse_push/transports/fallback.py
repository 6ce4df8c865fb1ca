"""The body of a response whose connection a stream could not take: a generator stream sends the rest."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from ..history.recovery_driver import Recovery
from .base import OpenStreams, TransportStream
from .generator import GeneratorStream
from .handover import Handover


def fallback_body(
    refused: TransportStream, handover: Handover, begin: int, hub: OpenStreams, recovery: Recovery
) -> Iterator[bytes]:
    """Yields the response body from the second chunk on. A `GeneratorStream` takes the place of `refused`.

    The stream ends early if its client could read no more anyway: when the head's Content-Length is reached,
    or when a middleware has collected the body for some seconds. Then the client gets the collected events
    all at once, and connects again.

    :param begin: number of bytes that the response body has yielded before.
    """
    settings, client = refused._settings, refused._client
    try:
        handover.leave_to_gunicorn()
    except BaseException:
        hub.leave(refused)
        raise
    kind = GeneratorStream if refused.poll is None else _short()
    stream = kind(refused.connection, refused.user_id, refused.channels, settings, client)
    stream.take_place_of(refused)
    length = handover.obstacle.length if handover.obstacle else None
    sent, patience = begin, time.monotonic() + settings.heartbeat / 2
    with contextlib.closing(stream.body(hub, recovery)) as body:
        for chunk in body:
            yield chunk
            sent += len(chunk)
            if length is not None and sent >= length:
                stream.end(b"")
            elif not handover.began and time.monotonic() > patience:
                stream.end_as_buffered()


def _short() -> type[GeneratorStream]:
    from .short_stream import ShortGeneratorStream

    return ShortGeneratorStream
