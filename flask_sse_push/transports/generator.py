"""The generator transport: the response body yields every chunk of the stream. Works on every WSGI server."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Generator, Mapping
from typing import Any

from ..history.recovery_driver import Recovery
from ..hub.latency import Timing
from ..hub.stream import Stream
from .base import OpenStreams, StreamFactory, TransportStream
from .cost import Cost, cost_of, explanation, refusal
from .head import NOT_SENT, report
from .sent_bytes import sent_bytes

logger = logging.getLogger(__name__)

_CONSEQUENCE = (
    "let responses with the mimetype text/event-stream pass unchanged; until then the stream ends after each "
    "heartbeat, and its client gets the events late"
)


class GeneratorTransport:
    """Serves any request, unless the stream would block the server or the connection.

    Each open stream keeps one of the server's threads or greenlets busy.
    """

    needs = "any connection"

    def __init__(self, leave: Callable[[Stream], None]) -> None:
        """Ignores `leave`, because the response body removes the stream from the hub when the stream ends."""
        self._told: set[Cost] = set()
        self._free: set[tuple[Any, ...]] = set()  # kinds of requests whose streams cost nothing

    def factory(self, environ: Mapping[str, Any], client: Any, short: bool = False) -> StreamFactory:
        """See `base.Transport.factory`. The first stream that costs too much is also told to the log.

        :raises Refused: 503, if the stream would block the server; 505, if it would block the connection.
        """
        is_http2 = environ.get("SERVER_PROTOCOL", "").startswith("HTTP/2")
        kind = environ.get("SERVER_SOFTWARE"), environ.get("wsgi.multithread"), is_http2
        if kind not in self._free:
            cost = cost_of(environ)
            if cost is Cost.NOTHING:
                self._free.add(kind)
            else:
                self._tell(cost, environ)
        if short:
            from .short_stream import ShortGeneratorStream, ShortWatchedStream

            return ShortGeneratorStream if client is None else ShortWatchedStream
        return GeneratorStream if client is None else WatchedStream

    def _tell(self, cost: Cost, environ: Mapping[str, Any]) -> None:
        refused = refusal(cost, environ)
        if cost not in self._told:
            self._told.add(cost)
            effect = "keep threads busy" if refused is None else "are refused"
            logger.error("streams %s: %s", effect, explanation(cost, environ))
            if refused is not None:
                refused.told = True
        if refused is not None:
            raise refused


class GeneratorStream(TransportStream):
    """A stream whose chunks wait in a list until the response body takes all of them at once."""

    __slots__ = ("_chunks", "_size", "_wake")

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._chunks: list[bytes] = []
        self._size = 0  # number of bytes in `_chunks`
        self._wake = threading.Event()

    def end_as_buffered(self) -> None:
        """Ends the stream because its client gets no byte before the end."""
        if not self.ended:
            self.reason = "buffered"
            self.end_with_reason("buffered", reconnect=True, retry=self._settings.retry)

    @property
    def buffered(self) -> int:
        return self._size

    def write(self, chunk: bytes) -> None:
        if self._last_frame is not None:
            return
        self._chunks.append(chunk)
        self._size += len(chunk)
        self._end_if_too_slow(self._size)
        self._wake.set()

    def time(self, timing: Timing) -> None:
        self._timing = timing
        if not self._chunks and self._timing is not None:  # another thread has taken the chunk already
            self._timing = None
            timing.end()

    def _drop_waiting(self) -> None:
        self._chunks.clear()
        self._size = 0

    def end(self, frame: bytes) -> None:
        super().end(frame)
        self._wake.set()

    def take(self) -> bytes:
        while not self._chunks and self._last_frame is None:
            self._wake.wait()
            self._wake.clear()
        self._size = 0
        chunks, self._chunks = self._chunks, []
        if self._last_frame is not None:
            chunks.append(super().take())
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)


class WatchedStream(GeneratorStream):
    """A stream that ends if the server takes its chunks but sends none of them."""

    __slots__ = ()

    def body(self, hub: OpenStreams, recovery: Recovery) -> Generator[bytes, None, None]:
        """Yields the response body, as `TransportStream.body` does.

        The stream ends early if the server asks for more chunks but sends none. Then a WSGI middleware
        collects the body, and would collect it as long as the stream is open.
        """
        before, patience = sent_bytes(self._client), time.monotonic() + self._settings.heartbeat / 2
        with contextlib.closing(super().body(hub, recovery)) as body:
            for chunk in body:
                yield chunk
                if before is None:
                    continue
                if sent_bytes(self._client) != before:
                    before = None  # the server sends the chunks
                elif time.monotonic() > patience:
                    report(NOT_SENT.kind, f"{NOT_SENT.found}; {_CONSEQUENCE}")
                    self.end_as_buffered()
