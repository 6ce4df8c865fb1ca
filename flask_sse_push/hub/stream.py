"""Where the bytes of one stream go. The transports say how."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Protocol

from ..protocol.channel import BROADCAST
from .recipients import Recipients

if TYPE_CHECKING:
    from .compression import StreamCompression
    from .group import Group


class Lease(Protocol):
    """What a stream holds of its user's and address's limits."""

    def release(self) -> None:
        """Gives it back. May be called twice."""


class Stream(ABC):
    """One open stream. `write` is called by the hub's dispatching thread alone, and never blocks."""

    __slots__ = (
        "address",
        "agent",
        "began",
        "bytes",
        "compression",
        "connection",
        "dismissed",
        "events",
        "grant",
        "group",
        "lease",
        "place",
        "reason",
        "secret",
        "since",
        "subscribed",
        "tagged",
        "touched",
        "user_id",
        "vouched",
        "wait",
    )

    def __init__(self, connection: str, user_id: str | None, channels: tuple[str, ...]) -> None:
        self.connection = connection
        self.user_id = user_id
        self.subscribed = (*channels, BROADCAST)
        self.tagged = False  # whether each event names its channels
        self.compression: StreamCompression | None = None  # set when its body is compressed
        self.grant: Any = None  # what its channels rest on; None: on nothing that can change
        self.secret: str | None = None  # lets its client change its channels; told in `sse.open`
        self.began = 0  # the position it began after
        self.vouched: frozenset[str] = frozenset()  # channels that the app added by itself
        self.lease: Lease | None = None  # what it takes of its user's and address's quotas
        self.address: str | None = None  # of the client
        self.agent: str | None = None  # what it calls itself
        self.since = 0.0  # Unix time at which it was opened
        self.events = self.bytes = 0  # what it was sent, less what its group had been before it joined
        self.group: Group | None = None  # set while it takes part in the fan-out
        self.dismissed = False  # set when it is about to end: nothing more is handed to it
        self.wait: float | None = None  # seconds that events may wait for a batch; None: as the app has it
        self.reason: str | None = None  # why it was ended; None: it was not, its client left
        self.place = 0  # where it stands in its group
        self.touched = 0.0  # monotonic time of the last chunk that went to this sink alone

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels the client asked for."""
        return tuple([name for name in self.subscribed if name != BROADCAST])

    def is_excluded(self, exclude: frozenset[str]) -> bool:
        """Whether an event is kept from this stream, by its connection id or its user's id."""
        return bool(exclude) and (self.connection in exclude or self.user_id in exclude)

    @property
    def sent(self) -> tuple[int, int]:
        """How many events it was sent, and how many bytes; what is on its way counts."""
        group = self.group
        if group is None:
            return self.events, self.bytes
        return self.events + group.events, self.bytes + group.bytes

    @property
    def buffered(self) -> int:
        """Bytes that wait until its client takes them."""
        return 0

    #: Whether a stream of this kind holds a place for a request all the time.
    holds_request = True
    #: What sinks of this kind are gathered in, to be written to in one go.
    recipients: type[Recipients] = Recipients

    @staticmethod
    def framed(frames: bytes) -> bytes:
        """`frames` as sinks of this kind take them: made once for all of a group."""
        return frames

    def encoded(self, frames: bytes) -> bytes:
        """`frames`, for this stream alone, as its body has them."""
        return frames if self.compression is None else self.compression.own(frames)

    def own(self, frames: bytes) -> bytes:
        """A chunk of `frames` for this stream alone. Once it has joined, called under the hub's lock, in the
        order in which chunks are written."""
        return self.framed(self.encoded(frames))

    def send_after_join(self, frames: bytes) -> bool:
        """Keeps the first frames, to send them after the stream has joined; returns False if it cannot."""
        return False

    def join(self) -> None:  # noqa: B027 (most kinds have nothing to do)
        """Called in the step in which the stream joins its group; must not switch to another thread."""

    @abstractmethod
    def write(self, chunk: bytes) -> None:
        """Takes a framed chunk. Does nothing when the stream has ended."""

    @abstractmethod
    def end(self, frame: bytes) -> None:
        """Ends the stream in good order after `frame`, not framed. Does nothing when it has ended."""

    @abstractmethod
    def cut_if_stuck(self, now: float) -> bool:
        """Cuts the connection if its client has read nothing for too long; returns whether it did."""
