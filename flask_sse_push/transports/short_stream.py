"""Short streams, for clients behind a proxy that holds a response back until it ends.

A short stream ends after its first events: those that the client has missed, or the first chunk that the
stream's group gets. If no event comes, maintenance sends a heartbeat after `Stream.poll` seconds, and that
chunk ends the stream too. The client then asks for the next short stream with its newest cursor, so it misses
nothing.
"""

from __future__ import annotations

from .generator import GeneratorStream, WatchedStream


class ShortGeneratorStream(GeneratorStream):
    """A short stream of the generator transport."""

    __slots__ = ()

    def join(self) -> None:
        if self.answered:
            self.end(b"")

    def write(self, chunk: bytes) -> None:
        super().write(chunk)
        self.end(b"")


class ShortWatchedStream(ShortGeneratorStream, WatchedStream):
    """A short stream of the generator transport, on a server that shows the client's socket."""

    __slots__ = ()
