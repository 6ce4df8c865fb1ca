"""One open stream as the hub sees it, and a list of streams that get the same chunk.

The transports derive from both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol

from ..protocol.channel import BROADCAST

if TYPE_CHECKING:
    from .compression import StreamCompression
    from .group import Group


class Lease(Protocol):
    """What one stream takes of the limits of its user and address."""

    def release(self) -> None:
        """Gives it back. May be called twice."""


class Recipients:
    """The streams that get one chunk: all of a group, or some of several groups.

    A delivery that is still being written may share this list with its group. Then `shared` is true and the
    list must not change any more: the group continues with a copy. So each chunk goes to exactly the streams
    that were in the group when the chunk was made, and an event does not copy the list.
    """

    __slots__ = ("shared", "streams")

    def __init__(self, streams: Iterable[Stream] = ()) -> None:
        self.streams = list(streams)
        self.shared = False

    def share(self) -> Recipients:
        """Returns the list itself, for a delivery. It must not change after that."""
        self.shared = True
        return self

    def copy(self) -> Recipients:
        """A list of the same streams that may change."""
        return type(self)(self.streams)

    def add(self, stream: Stream) -> None:
        """Appends a stream."""
        stream.index = len(self.streams)
        self.streams.append(stream)

    def remove(self, stream: Stream) -> None:
        """Removes a stream. Moves the last stream to its index, so the cost does not grow with the list."""
        last = self.streams.pop()
        if last is not stream:
            self.streams[stream.index] = last
            last.index = stream.index

    def write(self, chunk: bytes, begin: int, end: int) -> None:
        """Writes one framed chunk to the streams from index `begin` up to, not including, `end`."""
        for stream in self.streams[begin:end]:
            stream.write(chunk)


class Stream(ABC):
    """One open stream. Only the dispatcher calls `write`, which never blocks.

    A *framed* chunk has the bytes as they go to the socket: the transport may put HTTP chunk headers around
    the frames.
    """

    __slots__ = (
        "address",
        "agent",
        "app_joined",
        "batch_wait",
        "began",
        "bytes",
        "closing",
        "compression",
        "connection",
        "events",
        "grant",
        "group",
        "index",
        "lease",
        "opened_at",
        "reason",
        "secret",
        "subscribed",
        "tagged",
        "user_id",
        "written_at",
    )

    def __init__(self, connection: str, user_id: str | None, channels: tuple[str, ...]) -> None:
        self.connection = connection
        self.user_id = user_id
        self.subscribed = (*channels, BROADCAST)  # the channel of broadcasts is always the last one
        self.tagged = False  # whether each event names its channels
        self.compression: StreamCompression | None = None  # set when the response body is compressed
        self.grant: Any = None  # why it may listen; None when that cannot change, so nothing is rechecked
        self.secret: str | None = None  # lets the client change the channels; sent in `sse.open`
        self.began = 0  # the stream has all events of its first channels after this position
        self.app_joined: frozenset[str] = frozenset()  # channels that the app added, not the client
        self.lease: Lease | None = None
        self.address: str | None = None  # of the client
        self.agent: str | None = None  # the client's User-Agent
        self.opened_at = 0.0  # Unix time
        # Counts of its own only. While it is in a group, the group's counts must be added: see `sent`.
        self.events = self.bytes = 0
        self.group: Group | None = None  # None until it has all missed events and takes part in the fan-out
        self.closing = False  # once true, the hub hands it nothing but its last frame
        self.batch_wait: float | None = None  # seconds events wait for a batch; None: the app's default
        self.reason: str | None = None  # why the server closed it; None when the client left
        self.index = 0  # its index in the group's `Recipients`
        self.written_at = 0.0  # monotonic time of the last chunk written to this stream alone

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels without the internal one for broadcasts."""
        return self.subscribed[:-1]

    def is_excluded(self, exclude: frozenset[str]) -> bool:
        """Whether `exclude` names its connection or its user."""
        return bool(exclude) and (self.connection in exclude or self.user_id in exclude)

    @property
    def sent(self) -> tuple[int, int]:
        """The number of events and of bytes sent so far. Bytes that are still buffered count."""
        group = self.group
        if group is None:
            return self.events, self.bytes
        return self.events + group.events, self.bytes + group.bytes

    @property
    def buffered(self) -> int:
        """The number of bytes that the client has not taken yet."""
        return 0

    #: Whether a stream of this kind occupies one of the server's places for requests as long as it is open.
    holds_request = True
    #: The kind of list for streams of this kind.
    recipients: type[Recipients] = Recipients

    @staticmethod
    def framed(frames: bytes) -> bytes:
        """Returns `frames` as a framed chunk. Called once for all streams of a group."""
        return frames

    def encoded(self, frames: bytes) -> bytes:
        """Returns `frames` for this stream alone: compressed if its response body is compressed."""
        return frames if self.compression is None else self.compression.encode_alone(frames)

    def own_chunk(self, frames: bytes) -> bytes:
        """Returns a framed chunk of `frames` for this stream alone.

        Once the stream has a group, call it under the hub's lock, and write the chunks in the order of the
        calls: the checksum of a compressed body depends on that order.
        """
        return self.framed(self.encoded(frames))

    def send_after_join(self, frames: bytes) -> bool:
        """Keeps the first frames, to send them after the stream has joined; returns False if it cannot."""
        return False

    def join(self) -> None:  # noqa: B027 (most kinds have nothing to do)
        """Called under the hub's lock when the stream joins its group. Must not switch to another thread."""

    @abstractmethod
    def write(self, chunk: bytes) -> None:
        """Takes a framed chunk. Does nothing when the stream has ended."""

    @abstractmethod
    def end(self, frame: bytes) -> None:
        """Ends the stream after `frame`, which is not framed. Does nothing when it has ended."""

    @abstractmethod
    def cut_if_stuck(self, now: float) -> bool:
        """Cuts the connection if its client has read nothing for `SSE_PUSH_WRITE_TIMEOUT` seconds.

        :param now: monotonic seconds.
        :returns: whether it did.
        """
