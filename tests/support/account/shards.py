"""What a stream over several shards must get: an account for each shard, by its part of the cursor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from flask_sse_push.history.position import StartPoint
from flask_sse_push.protocol import shard_cursor
from flask_sse_push.protocol.channel import BROADCAST, shard_of
from flask_sse_push.protocol.cursor import EARLIEST, LOST

from .published import Account, Place
from .records import Changed, Ended, Got, Missed, Moved, Opened, Record, Reset, cursor_of
from .stream import BOGUS, StreamAccount
from .verdict import Verdict

#: Shards of the model.
COUNT = 2


class Placement:
    """Where channels lie, reckoned without the package: the rule that streams rely on."""

    def __init__(self, channels: Iterable[str]) -> None:
        self.names = tuple(channels)
        shards = {name: shard_of(name, COUNT) for name in self.names}
        home = shards[min(shards)] if shards else 0
        self.of = {**shards, BROADCAST: home}
        self.parts = {k: {name for name in self.of if self.of[name] == k} for k in set(self.of.values())}
        self.channel_hash = shard_cursor.channel_hash(self.names)


class PartAccount(StreamAccount):
    """What the stream must get from one shard."""

    shard: int
    stream: ShardedStreamAccount

    def _must_get(self, at: int) -> bool:
        return self.stream.taker(self._account.events[at].serial) == self.shard and super()._must_get(at)


class ShardedStreamAccount:
    """As `StreamAccount`, over one shard or several.

    :param channels_of: the channels of each event by its serial, on whatever shard they lie.
    :param is_behind: returns whether the stream's worker does not know of a shard's last failover yet.
    """

    def __init__(
        self,
        accounts: Sequence[Account],
        channels_of: Mapping[int, Sequence[str]],
        verdict: Verdict,
        *,
        identities: set[str],
        is_behind: Callable[[int], bool],
    ) -> None:
        self._accounts = accounts
        self._channels_of = channels_of
        self._verdict = verdict
        self._identities = identities
        self._is_behind = is_behind

    def connect(self, channels: Iterable[str], start: StartPoint) -> None:
        """The client opens a connection."""
        self.cursor = self._asked = start.cursor
        self._next: tuple[str, ...] | None = None  # channels after the reset that must come now
        self._requests: list[tuple[tuple[str, ...], tuple[str, ...], StartPoint]] = []
        self.placement = Placement(name for name in channels if name != BROADCAST)
        given = self._given(start.cursor)
        self._begin({k: StartPoint(given[k], start.newest) for k in given})

    def _begin(self, starts: Mapping[int, StartPoint]) -> None:
        self.parts: dict[int, PartAccount] = {}
        for k, start in starts.items():
            part = PartAccount(
                self._accounts[k],
                self._verdict,
                name=f"shard {k} of the stream",
                identities=self._identities,
                is_behind=lambda k=k: self._is_behind(k),  # type: ignore[misc]
            )
            part.shard, part.stream = k, self
            part.connect(self.placement.parts[k], start)
            self.parts[k] = part

    @property
    def split(self) -> bool:
        """Whether the stream's channels lie on several shards."""
        return len(self.placement.parts) > 1

    def taker(self, serial: int) -> int | None:
        """The shard from which the stream must get an event; None: the event is for others."""
        channels = self._channels_of[serial]
        return next((self.placement.of[name] for name in channels if name in self.placement.of), None)

    def _given(self, cursor: str | None) -> dict[int, str | None]:
        """The position that the cursor gives on each shard."""
        parts = self.placement.parts
        if not cursor or cursor in (EARLIEST, *BOGUS):
            return dict.fromkeys(parts, cursor)
        given = shard_cursor.parse(cursor)
        if given is None:
            (k, *more) = parts
            known = cursor.startswith(f"{k}{COUNT}") and not more
            return dict.fromkeys(parts, cursor if known else LOST)
        good = given.channel_hash == shard_cursor.ANY_CHANNELS or (
            given.channel_hash == self.placement.channel_hash and self.split
        )
        return {k: given.texts()[k] if good else LOST for k in parts}

    def _texts(self, cursor: str) -> dict[int, str]:
        """The part of a cursor for each shard."""
        assert len(cursor) <= 128
        parts = self.placement.parts
        if not self.split:
            return dict.fromkeys(parts, cursor)
        given = shard_cursor.parse(cursor)
        assert given is not None, f"{cursor!r} is no vector"
        assert given.channel_hash == self.placement.channel_hash or (
            given.channel_hash == shard_cursor.ANY_CHANNELS and cursor == self._asked
        )
        texts = given.texts()
        if given.channel_hash == shard_cursor.ANY_CHANNELS:
            texts = {k: texts[k] for k in parts}
        assert texts.keys() == parts.keys()
        return texts

    def read(self, record: Record) -> None:
        """Compares the next record with what the stream must get."""
        cursor = cursor_of(record)
        if self._next is not None:
            assert isinstance(record, Reset), "a reset had to come"
            self._begin_anew(record, self._next)
        else:
            self._read(record, self._texts(cursor) if cursor else {})
        self.cursor = cursor or self.cursor

    def _read(self, record: Record, texts: Mapping[int, str]) -> None:
        match record:
            case Opened():
                for k, part in self.parts.items():
                    part.read(record._replace(cursor=texts[k]))
            case Got() | Moved():
                taker = self.taker(record.serial) if isinstance(record, Got) else None
                assert taker is not None or isinstance(record, Moved), "the event is for others"
                for k, part in self.parts.items():
                    if k == taker:
                        part.read(record._replace(cursor=texts[k]))
                    else:
                        self._move(part, texts[k])
            case Reset():
                self._reset(record, texts)
            case Changed(cursor=None):
                self._next = record.channels if record.joined or record.left else None
                assert self._next is not None or set(record.channels) == set(self.placement.names)
            case Changed() | Missed():
                (part,) = self.parts.values()
                part.read(record)
                if isinstance(record, Changed):
                    self.placement = Placement(record.channels)
            case Ended():
                pass

    def _move(self, part: StreamAccount, cursor: str) -> None:
        """The stream has a new position on a shard from which nothing came."""
        if cursor in (EARLIEST, LOST):
            assert part.cursor == cursor, "it was further already"
        else:
            part.read(Moved(cursor))

    def _reset(self, record: Reset, texts: Mapping[int, str]) -> None:
        names = set(record.channels)
        if not names & self.placement.of.keys():  # of channels that the stream joins
            (part,) = self.parts.values()
            part.read(record)
            return
        whole = names >= set(self.placement.names)
        for k, part in self.parts.items():
            here = [name for name in record.channels if name in self.placement.parts[k]]
            if here or whole:
                part.read(record._replace(channels=tuple(here) or (BROADCAST,), cursor=texts.get(k)))
            elif texts:
                self._move(part, texts[k])

    def _begin_anew(self, record: Reset, channels: tuple[str, ...]) -> None:
        """The stream changed its channels, and begins anew on all its shards."""
        assert record.reason == "channels"
        assert record.cursor is not None
        assert set(record.channels) == set(channels or (BROADCAST,))
        self._next = None
        self.placement = Placement(channels)
        self._begin(dict.fromkeys(self.placement.parts, StartPoint()))
        for k, text in self._texts(record.cursor).items():
            self.parts[k].read(Opened(text, resumed=False))
        for request in () if self.split else self._requests:
            self._hand_on(*request)

    def request_change(self, join: Iterable[str], leave: Iterable[str], start: StartPoint) -> None:
        """Somebody asked that the stream changes its channels. The command may not reach its worker."""
        self._requests.append((tuple(join), tuple(leave), start))
        if not self.split:
            self._hand_on(*self._requests[-1])

    def _hand_on(self, join: tuple[str, ...], leave: tuple[str, ...], start: StartPoint) -> None:
        ((k, part),) = self.parts.items()
        cursor = start.cursor
        if cursor and not cursor.startswith(f"{k}{COUNT}") and cursor != EARLIEST:
            cursor = BOGUS[1]
        part.request_change(join, leave, StartPoint(cursor, start.newest))

    def ended(self, commands: Iterable[Place], *, joined: bool) -> None:
        """One of these commands, which lie on the first shard, ended the stream."""
        assert commands
        if 0 in self.parts:
            self.parts[0].ended(commands, joined=joined)

    def has_got(self, serial: int) -> bool:
        """Whether the event came."""
        return any(part.has_got(serial) for part in self.parts.values())

    def has_all(self) -> bool:
        """Whether nothing is still to come."""
        return self._next is None and all(part.has_all() for part in self.parts.values())
