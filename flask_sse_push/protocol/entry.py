"""Publications (events on their way to the broker) and entries (events as the broker stores them)."""

from __future__ import annotations

import copy
import re
from collections.abc import Collection
from typing import NamedTuple
from urllib.parse import parse_qs, urlencode

from .cursor import MAX_ID, Cursor, base36

#: Tabs of a browser may share a stream. The id of a tab then begins with the id of the stream. This character
#: follows, and then a part that only this tab has.
TAB_MARK = "~"
_TAB = re.compile(r"[A-Za-z0-9-]{1,40}", re.ASCII)
#: The first line of a stored entry.
_HEAD = re.compile(rb"([a-z0-9]{1,16}) ([0-9]{1,16}) (-?[0-9]{1,16}) ([!-~]+)")
#: The lines of a body before its first line of data, which follows. Of the types that begin with `sse.`, only
#: `sse.presence` is published; the others come from a worker.
_BODY = re.compile(
    rb"(?:event: (?!sse\.(?!presence\n))[^\r\n\0]+\n)?(?:retry: [0-9]{1,10}\n)?"
    rb"(?:traceparent: (00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2})\n)?(?=data: )"
)


class Publication(NamedTuple):
    """An event on its way to the broker: the lines of the event on the wire, and who gets the event."""

    body: bytes
    channels: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    #: How long the event is replayed, in seconds; None: as long as the history keeps the event.
    ttl: float | None = None
    #: The event's channels on the shard that stores this publication; empty if all its channels lie there.
    here: tuple[str, ...] = ()

    @property
    def lists(self) -> tuple[str, ...]:
        """The channels whose lists the event is added to: all its channels that lie on the storing shard."""
        return self.here or self.channels

    def meta(self) -> str:
        """Returns the excluded ids, the channels and the time to live as one URL-encoded word.

        Returns `-` for an event with one channel, without excluded ids and without a time to live.
        """
        if len(self.channels) == 1 and not self.exclude and self.ttl is None:
            return "-"
        fields = [("x", name) for name in self.exclude]
        if len(self.channels) > 1:
            fields += [("m", name) for name in self.channels]
        if self.ttl is not None:
            fields.append(("t", str(round(self.ttl * 1_000_000))))
        return urlencode(fields) or "-"


class Entry:
    """An event as the broker stores it: its position in the shard's order, and its frame, ready to send."""

    __slots__ = ("channels", "epoch", "exclude", "expires", "frame", "id", "prev", "shared", "traceparent")

    def __init__(
        self,
        epoch: str,
        id: int,
        prev: int,
        body: bytes,
        exclude: frozenset[str] = frozenset(),
        expires: int = 0,
        shared: bool = False,
        channels: tuple[str, ...] = (),
    ) -> None:
        self.epoch = epoch
        self.id = id
        # Id of the previous event on this channel. If the broker knows of no previous event, `prev` is the
        # negative number `-p`: there was no event between the position `p` and this event.
        self.prev = prev
        self.frame = f"id: {epoch}-{base36(id)}\n".encode() + body  # as `event_frame` writes it
        self.exclude = exclude
        self.expires = expires  # from this time of the broker's clock on, it is not replayed; 0: no limit
        self.shared = shared  # whether the event was published to several channels
        self.channels = channels  # all channels that the event was published to
        self.traceparent: bytes | None = None  # set by `check_body` if the event is traced

    def is_expired(self, clock: float) -> bool:
        """Whether the event is too old to be replayed. `clock` is the broker's clock in microseconds."""
        return 0 < self.expires <= clock

    @property
    def position(self) -> Cursor:
        """The event's position in the order of its shard."""
        return Cursor(self.epoch, self.id)

    @property
    def cursor(self) -> str:
        """The cursor in the frame of this entry, as text."""
        return self.frame[4 : self.frame.index(b"\n")].decode()

    def placed(self, cursor: str) -> Entry:
        """Returns a copy of the entry that has another cursor in its frame."""
        entry = copy.copy(self)
        entry.frame = event_frame(cursor, self.frame.partition(b"\n")[2])
        return entry

    def tagged(self, subscribed: Collection[str]) -> bytes:
        """Returns a `channel:` field with the event's channels that are in `subscribed`, then the frame.

        If the event excludes tabs that share a stream, the field also has the tabs' own parts of their ids.
        """
        names = [name for name in self.channels if name in subscribed]
        if self.exclude:
            names += filter(None, map(tab_of, sorted(self.exclude)))
        return b"channel: %b\n%b" % (",".join(names).encode(), self.frame)

    def check_body(self) -> None:
        """Checks that the event has only the lines that `Event.encode` writes. Sets `traceparent`.

        Other lines could hide or change the next events of a stream. Clients never get the events of the
        package's own channels, which begin with `!`, so those are not checked.

        :raises ValueError: if the event has other lines.
        """
        if self.channels[0].startswith("!"):
            return
        frame = self.frame
        begin = _BODY.match(frame, frame.index(b"\n") + 1)
        if begin is None:
            raise ValueError("the body does not begin with an event type, retry or data")
        self.traceparent = begin[1]
        at = begin.end()
        lines = 1 + frame.count(b"\ndata: ", at)
        if frame[-2:] != b"\n\n" or b"\r" in frame or frame.count(b"\n", at) != lines + 1:
            raise ValueError("the body has lines that are not data")
        if not frame.isascii():
            frame.decode()  # raises UnicodeDecodeError, which is a ValueError

    @classmethod
    def parse(cls, stored: bytes, channel: str = "") -> Entry:
        """Reads an entry of `channel` from its stored form `<epoch> <id> <prev> <meta>\\n<body>`.

        :raises ValueError: if `stored` has another form, or a value that the broker never writes.
        """
        head, _, body = stored.partition(b"\n")
        found = _HEAD.fullmatch(head)
        if found is None:
            raise ValueError("the item does not begin with epoch, id, prev and meta")
        id, prev = int(found[2]), int(found[3])
        if not 0 < id <= MAX_ID:
            raise ValueError(f"the id {id} is not valid")
        epoch = found[1].decode()
        if found[4] == b"-" or found[4].startswith(b"b="):  # publish.lua alone reads `b`, the last field
            return cls(epoch, id, prev, body, channels=(channel,))
        fields = parse_qs(found[4].decode("ascii"), strict_parsing=True)
        expires = 0
        if "t" in fields:  # entries of older versions have no `e`: there, the id stands for the clock
            expires = _micros(fields["e"][0]) if "e" in fields else id + _micros(fields["t"][0])
        exclude, channels = frozenset(fields.get("x", ())), tuple(fields.get("m", (channel,)))
        if channel and channel not in channels:
            raise ValueError(f"the item belongs to other channels than {channel!r}")
        return cls(epoch, id, prev, body, exclude, expires, "m" in fields, channels)


def _micros(digits: str) -> int:
    """Returns a number of microseconds.

    :raises ValueError: if `digits` is not a number of at most 16 digits.
    """
    if len(digits) > 16 or not digits.isdecimal():
        raise ValueError(f"the time to live {digits[:20]!r} is not a number of microseconds")
    return int(digits)


def tab_of(connection: str) -> str:
    """Returns the end of the id of a tab on a shared stream, such as `~k3x`; "" for other ids."""
    _, mark, tab = connection.partition(TAB_MARK)
    return mark + tab if _TAB.fullmatch(tab) else ""


def stored_form(epoch: str, id: int, prev: int, publication: Publication, expires: int = 0) -> bytes:
    """Returns the bytes of an entry as brokers store it: `<epoch> <id> <prev> <meta>`, a line end, the body.

    publish.lua writes the same form.

    :param expires: the time of the broker's clock at which an event with a time to live expires.
    """
    if expires:
        return f"{epoch} {id} {prev} {publication.meta()}&e={expires}\n".encode() + publication.body
    return f"{epoch} {id} {prev} {publication.meta()}\n".encode() + publication.body


def event_frame(cursor: str, body: bytes) -> bytes:
    """Returns the bytes of one event on the wire: an `id:` line with `cursor`, then `body`.

    `cursor` must be ASCII without line ends.
    """
    return b"id: %b\n%b" % (cursor.encode("ascii"), body)
