"""One open stream as the hub sees it, and a list of streams that get the same chunk.

Transports have subclasses of `Stream` and of `Recipients`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol

from ..protocol.channel import BROADCAST
from ..protocol.frames import close_frame

if TYPE_CHECKING:
    from .compression import StreamCompression
    from .encoder import Encoder
    from .group import Group
    from .latency import Timing


class Reservation(Protocol):
    """Counts one stream against the limits of its user and its address."""

    def release(self) -> None:
        """Stops counting the stream against the limits. May be called twice."""


class Recipients:
    """The streams that get one chunk: all streams of a group, or some streams of several groups.

    A group shares this list with its deliveries, so that the list is not copied for each event. Once `shared`
    is true, the list must not change any more: the group makes a copy and changes the copy. So each chunk
    goes to exactly the streams that were in the group when the chunk was made.
    """

    __slots__ = ("shared", "streams")

    def __init__(self, streams: Iterable[Stream] = ()) -> None:
        self.streams = list(streams)
        self.shared = False

    @property
    def is_outdated(self) -> bool:
        """Whether a new list of the same streams could write faster than this list, since `share`."""
        return False

    def share(self) -> Recipients:
        """Returns the list itself, for a delivery. The list must not change after this call."""
        self.shared = True
        return self

    def copy(self) -> Recipients:
        """Returns a new list of the same streams. The new list is not shared."""
        return type(self)(self.streams)

    def add(self, stream: Stream) -> None:
        """Appends a stream to the list."""
        stream.index = len(self.streams)
        self.streams.append(stream)

    def extend(self, others: Recipients) -> None:
        """Appends the streams of another list. Their indexes stay those of the other list."""
        self.streams += others.streams

    def remove(self, stream: Stream) -> None:
        """Removes a stream. Moves the last stream to the freed index, which is fast for long lists too."""
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

    A *framed* chunk has the bytes as they go to the socket: some frames, and the HTTP chunk header if the
    transport adds one.
    """

    __slots__ = (
        "address",
        "agent",
        "answered",
        "app_joined",
        "batch_wait",
        "began",
        "bytes",
        "closing",
        "compression",
        "connection",
        "dialect",
        "encoder",
        "events",
        "grant",
        "group",
        "index",
        "lost_at",
        "opened_at",
        "poll",
        "reason",
        "reservation",
        "secret",
        "subscribed",
        "tagged",
        "user_id",
        "written_at",
    )

    def __init__(self, connection: str, user_id: str | None, channels: tuple[str, ...]) -> None:
        self.connection = connection
        self.user_id = user_id
        self.subscribed = (*channels, BROADCAST)  # the last channel is always the broadcast channel
        self.tagged = False  # whether the stream gets each event with the names of its channels
        self.dialect = ""  # how the server writes its own events: the value of `?events=`, or ""
        self.encoder: Encoder | None = None  # writes the events in another format; None if none is wanted
        self.compression: StreamCompression | None = None  # None if the response body is not compressed
        self.grant: Any = None  # the permission to check again later; None if it cannot change
        self.secret: str | None = None  # allows the client to change its channels; sent in `sse.open`
        # After how many seconds without an event a short stream ends; None if the stream is not short.
        self.poll: float | None = None
        self.answered = False  # whether the stream has sent missed events or an `sse.reset`
        self.began = 0  # the position after which the stream gets every event
        self.app_joined: frozenset[str] = frozenset()  # channels that the app added, not the client
        self.reservation: Reservation | None = None
        self.address: str | None = None  # IP address of the client
        self.agent: str | None = None  # the client's User-Agent
        self.opened_at = 0.0  # Unix time at which the stream opened
        self.lost_at = 0.0  # Unix time at which the stream last got `sse.reset`; 0: never
        # Events and bytes sent to this stream. While the stream is in a group, the numbers of the group must
        # be added: see `sent`.
        self.events = self.bytes = 0
        self.group: Group | None = None  # None until the stream has got all missed events
        self.closing = False  # whether only the last frame may still be sent to the stream
        # How long events may wait for a batch, in seconds; 0: no batches; None: the app's default decides.
        self.batch_wait: float | None = None
        self.reason: str | None = None  # why the server closed the stream; None if the client left
        self.index = 0  # the stream's index in the `Recipients` of its group
        self.written_at = 0.0  # monotonic time of the last chunk written to this stream alone

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels of the stream, without the internal channel for broadcasts."""
        return self.subscribed[:-1]

    def after_fork(self) -> None:
        """Closes a forked child's copy of the stream's connection. Called in the child."""
        self.closing = True

    def is_excluded(self, exclude: frozenset[str]) -> bool:
        """Whether `exclude` contains the connection or the user of the stream."""
        return bool(exclude) and (self.connection in exclude or self.user_id in exclude)

    @property
    def sent(self) -> tuple[int, int]:
        """How many events and how many bytes were sent so far, including bytes that are still buffered."""
        group = self.group
        if group is None:
            return self.events, self.bytes
        return self.events + group.events, self.bytes + group.bytes

    @property
    def buffered(self) -> int:
        """How many bytes wait in this process because the client has not taken them yet."""
        return 0

    #: Whether an open stream of this class keeps one of the server's threads or greenlets for requests busy.
    holds_request = True
    #: The class of the list that a group uses for streams of this class.
    recipients: type[Recipients] = Recipients

    @staticmethod
    def framed(frames: bytes) -> bytes:
        """Returns `frames` as a framed chunk. Called once for all streams of a group."""
        return frames

    def encoded(self, frames: bytes) -> bytes:
        """Returns `frames` for this stream alone. They are compressed if the response body is compressed."""
        return frames if self.compression is None else self.compression.encode_alone(frames)

    def own_chunk(self, frames: bytes) -> bytes:
        """Returns a framed chunk of `frames` for this stream alone.

        If the stream has a group, the caller must hold the hub's lock, and must write the chunks in the order
        in which they were made. The checksum of a compressed body depends on that order.
        """
        return self.framed(self.encoded(frames))

    def send_after_join(self, frames: bytes) -> bool:
        """Keeps the first frames, to send them after `join`. Returns False if the stream cannot keep them."""
        return False

    def join(self) -> None:  # noqa: B027 (most subclasses have nothing to do)
        """Called under the hub's lock just before the stream joins its group. Must not switch threads."""

    def time(self, timing: Timing) -> None:
        """Ends `timing` when the chunk that `write` got last has left this process. Does not block."""
        timing.end()

    @abstractmethod
    def write(self, chunk: bytes) -> None:
        """Sends a framed chunk, or keeps it to be sent. Does nothing if the stream has ended."""

    @abstractmethod
    def end(self, frame: bytes) -> None:
        """Ends the stream after a last frame. Does nothing if the stream has ended.

        :param frame: the last frame, without HTTP chunk headers; b"" to end without a last frame.
        """

    #: Whether the client can tell a broken connection from the end of the response body.
    shows_cut = False

    def end_with_reason(self, reason: str, *, reconnect: bool, retry: float, notice: bytes = b"") -> None:
        """Ends the stream and tells the client why.

        A client that reads another format has no word for "come back later". If the client can come back, its
        connection breaks: it sees a network error, and its way to resume is made for that. An end without an
        error would look like the end of the events.

        :param reconnect: whether the client may come back.
        :param retry: after how many seconds the client should come back, on average.
        :param notice: frames to send before the last frame, if the stream has this package's format.
        """
        if self.encoder is None:
            last = close_frame(reason, reconnect=reconnect, retry=retry, dialect=self.dialect)
            self.end(notice + last)
        elif reconnect and self.shows_cut:
            self.cut()
        else:
            self.end(self.encoder.closing(reason, reconnect=reconnect))

    def complete(self, frames: bytes) -> None:
        """Ends the stream after its last frames, because its encoder has come to the end of its events."""
        self.reason = self.reason or "done"
        self.end(frames)

    def cut(self) -> None:
        """Breaks the connection without a last frame. Does not block."""
        self.end(b"")

    @abstractmethod
    def cut_if_stuck(self, now: float) -> bool:
        """Cuts the connection if its client has read nothing for `SSE_PUSH_WRITE_TIMEOUT` seconds.

        :param now: monotonic seconds.
        :returns: whether the connection was cut.
        """
