"""The seam for streams that get their events in another format than that of this package.

For example, a client may read a run as a message stream of AI SDK. The package `runs` has the encoders. The
hub does not know the formats.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Sequence
from typing import TYPE_CHECKING

from ..protocol.entry import Entry
from ..protocol.frames import comment
from .group import Chunks, Delivery, Group, recipients_of

if TYPE_CHECKING:
    from .compression import WindowPool
    from .stream import Stream

#: The heartbeat of streams with an encoder. No blank line follows this comment, so clients report no event.
HEARTBEAT = comment("heartbeat")


class Encoder(ABC):
    """Writes the events of one stream, or of all streams of a group, in another format.

    The state of an encoder depends only on the events that it has encoded. So a stream that has encoded its
    missed events alone has the same state as a group that has encoded the same events when they arrived. The
    caller holds the hub's lock.
    """

    #: Whether the format's last bytes were written. The stream ends after them.
    ended = False

    @property
    @abstractmethod
    def key(self) -> Hashable:
        """Streams whose encoders have the same key may share one encoder."""

    @abstractmethod
    def opening(self) -> bytes:
        """Returns the first bytes of the stream. They are never empty."""

    @abstractmethod
    def encode(self, entries: Iterable[Entry]) -> bytes:
        """Returns the bytes for some events; b"" if the format leaves these events out."""

    @abstractmethod
    def caught_up(self) -> bytes:
        """Returns bytes to send when the stream has every missed event, usually b""."""

    @abstractmethod
    def lose(self, channels: Sequence[str]) -> bytes:
        """Returns the last bytes of a stream that cannot get all events of these channels."""

    @abstractmethod
    def closing(self, reason: str, *, reconnect: bool) -> bytes:
        """Returns the last bytes of a stream that the server closes. Does not change the encoder's state.

        :param reason: the reason, as in `sse.close`.
        :param reconnect: whether the client may come back and read the rest.
        """


class EncodedGroup(Group):
    """A group whose streams share one encoder, so that each event is encoded once."""

    __slots__ = ("encoder",)

    heartbeat_form = "encoded"

    def __init__(
        self, channels: tuple[str, ...], kind: type[Stream], window_pool: WindowPool | None, encoder: Encoder
    ) -> None:
        super().__init__(channels, kind, window_pool=window_pool)
        self.encoder = encoder

    def add(self, stream: Stream) -> None:
        stream.encoder = self.encoder
        super().add(stream)

    def heartbeat(self) -> bytes:
        return HEARTBEAT

    def reset_notice(self, channels: Sequence[str], reason: str, cursor: str | None) -> bytes:
        return self.encoder.lose(channels)

    def flush(self, now: float, chunks: Chunks, notice: bytes = b"") -> list[Delivery]:
        """Makes the deliveries of all pending entries; the last one also ends the streams."""
        entries, self.pending = self.pending, []
        ended_before = self.encoder.ended and not notice
        frames = notice + self.encoder.encode(entries)
        if not frames or ended_before:
            return []
        self.written_at = now
        self.events += len(entries)
        if self.encoder.ended:
            self.bytes += len(frames)
            recipients = recipients_of(self.kind, self.streams)
            return [Delivery(self.kind, recipients, frames, (), notice, entries, is_last=True)]
        if self.window:
            return self._compressed(self.window, frames, (), notice, entries)
        chunk = self.kind.framed(frames)
        self.bytes += len(chunk)
        return [Delivery(self.kind, self.recipients.share(), chunk, (), notice, entries)]

    deliveries = flush
