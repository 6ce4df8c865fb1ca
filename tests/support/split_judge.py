"""The judge of streams over two shards: one for each shard, by the part of the cursor that is for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from flask_sse_push.history.position import StartPoint
from flask_sse_push.protocol import shard_cursor
from flask_sse_push.protocol.channel import BROADCAST, shard_of
from flask_sse_push.protocol.cursor import EARLIEST, LOST

from .judge import BOGUS, Fact, Fields, Judge, Truth

if TYPE_CHECKING:
    from .split_simulation import SplitWorld
    from .stepping import Primary

#: Shards of this world.
COUNT = 2


class LegTruth(Truth):
    """What was published to one shard."""

    def __init__(self, broker: Primary) -> None:
        super().__init__(broker)
        self.shared: set[str] = set()  # events of several channels, wherever these lie

    def is_shared(self, fact: Fact) -> bool:
        return fact.serial in self.shared


class Places:
    """Where channels lie, reckoned anew: the rule that streams rely on."""

    def __init__(self, channels: Iterable[str]) -> None:
        self.names = tuple(channels)
        shards = {name: shard_of(name, COUNT) for name in self.names}
        home = shards[min(shards)] if shards else 0
        self.of = {**shards, BROADCAST: home}
        self.parts = {k: {name for name in self.of if self.of[name] == k} for k in set(self.of.values())}

    def taker(self, channels: Sequence[str]) -> int | None:
        """The shard from which an event on `channels` comes."""
        return next((self.of[name] for name in channels if name in self.of), None)


class LegJudge(Judge):
    """Judges what comes from one shard."""

    world: SplitWorld
    places: Places
    shard: int

    def _due(self, at: int) -> bool:
        channels = self.world.channels[self._truth.facts[at].serial]
        return self.places.taker(channels) == self.shard and super()._due(at)


class SplitJudge(Judge):
    """Judges a stream on each of its shards."""

    def __init__(
        self,
        world: SplitWorld,
        who: set[str],
        channels: tuple[str, ...],
        start: StartPoint,
        is_behind: Callable[[int], bool],
    ) -> None:
        self.world = world
        self._is_behind_on = is_behind  # whether the stream's worker has not heard of a shard's last failover
        self.cursor = start.cursor
        self._who = who
        self._reach(channels)
        texts = self._given(start)
        self.legs = {k: self._leg(k, StartPoint(texts[k], start.newest)) for k in self.places.parts}
        self._next: tuple[str, ...] | None = None  # channels after the reset that is due
        self._asked = start.cursor
        self._wished: list[tuple[tuple[str, ...], tuple[str, ...], StartPoint]] = []

    def _reach(self, channels: Iterable[str]) -> None:
        self.places = Places(channels)
        self.channel_hash = shard_cursor.channel_hash(self.places.names)

    @property
    def split(self) -> bool:
        return len(self.places.parts) > 1

    def _given(self, start: StartPoint) -> dict[int, str | None]:
        """What the cursor says on each shard."""
        parts = self.places.parts
        if not start.cursor or start.cursor in (EARLIEST, *BOGUS):
            return dict.fromkeys(parts, start.cursor)
        given = shard_cursor.parse(start.cursor)
        if given is None:
            (k, *more) = parts
            known = start.cursor.startswith(f"{k}{COUNT}") and not more
            return dict.fromkeys(parts, start.cursor if known else LOST)
        good = given.channel_hash == shard_cursor.ANY_CHANNELS or (
            given.channel_hash == self.channel_hash and self.split
        )
        return {k: given.texts()[k] if good else LOST for k in parts}

    def _leg(self, k: int, start: StartPoint) -> LegJudge:
        names = self.places.parts[k] - {BROADCAST}
        leg = LegJudge(self.world.brokers[k].truth, self._who, names, start, lambda: self._is_behind_on(k))
        leg._channels = set(self.places.parts[k])
        leg.world, leg.places, leg.shard = self.world, self.places, k
        return leg

    def _texts(self, cursor: str) -> dict[int, str]:
        """The part of a cursor for each shard."""
        assert len(cursor) <= 128
        if not self.split:
            return {next(iter(self.places.parts)): cursor}
        given = shard_cursor.parse(cursor)
        assert given is not None, f"{cursor!r} is no vector"
        assert given.channel_hash == self.channel_hash or (
            given.channel_hash == shard_cursor.ANY_CHANNELS and cursor == self._asked
        )
        texts = given.texts()
        if given.channel_hash == shard_cursor.ANY_CHANNELS:
            texts = {k: texts[k] for k in self.places.parts}
        assert texts.keys() == self.places.parts.keys()
        return texts

    def read(self, fields: Fields) -> None:
        kind, cursor = fields.get("event", "message"), fields.get("id")
        self._read(kind, fields, self._texts(cursor) if cursor and self._next is None else {})
        if cursor:
            self.cursor = cursor

    def _read(self, kind: str, fields: Fields, texts: dict[int, str]) -> None:
        if self._next is not None and kind not in ("sse.reset",):
            raise AssertionError("a reset was due")
        if kind == "sse.reset" and self._next is not None:
            self._anew(json.loads(fields["data"]), fields["id"])
        elif kind == "sse.reset":
            self._reset(json.loads(fields["data"]), texts)
        elif kind == "sse.channels" and not texts:
            data = json.loads(fields["data"])
            self._next = tuple(data["channels"]) if data["joined"] or data["left"] else None
            assert self._next is not None or set(data["channels"]) == set(self.places.names)
        elif kind == "message":
            self._message(fields["data"], texts)
        elif kind == "sse.channels":
            (leg,) = self.legs.values()
            leg.read(fields)
            self._reach(json.loads(fields["data"])["channels"])
            leg.places = self.places
        elif kind == "sse.missed":
            (leg,) = self.legs.values()
            leg.read(fields)
        elif kind == "sse.open":
            for k, leg in self.legs.items():
                leg.read({**fields, "id": texts[k]})
        else:
            for k, leg in self.legs.items():
                self._step(leg, {**fields, "id": texts[k]})

    def _step(self, leg: LegJudge, fields: Fields) -> None:
        """The position on a shard from which nothing came."""
        if fields["id"] in (EARLIEST, LOST):
            assert leg.cursor == fields["id"], "it was further already"
            return
        leg.read({"event": "sse.heartbeat", "data": "{}", "id": fields["id"]})

    def _message(self, serial: str, texts: dict[int, str]) -> None:
        k = self.places.taker(self.world.channels[serial])
        assert k is not None, f"event {serial} is for others"
        for number, leg in self.legs.items():
            if number == k:
                leg.read({"data": serial, "id": texts[number]})
            else:
                self._step(leg, {"id": texts[number]})

    def _reset(self, data: dict[str, Any], texts: dict[int, str]) -> None:
        names = set(data["channels"])
        if not names & self.places.of.keys():  # of channels that are being joined
            (leg,) = self.legs.values()
            leg._lost(data, None)
            return
        for k, leg in self.legs.items():
            here = [name for name in data["channels"] if name in self.places.parts[k]]
            whole = names >= set(self.places.names)
            if whole and not here:
                here = [BROADCAST]
            if here:
                leg._lost({**data, "channels": here}, texts.get(k))
                leg.cursor = texts.get(k, leg.cursor)
            elif texts:
                self._step(leg, {"id": texts[k]})

    def _anew(self, data: dict[str, Any], cursor: str) -> None:
        assert data["reason"] == "channels"
        assert self._next is not None
        assert set(data["channels"]) == set(self._next or (BROADCAST,))
        self._reach(self._next)
        self._next = None
        texts = self._texts(cursor)
        self.legs = {k: self._leg(k, StartPoint()) for k in self.places.parts}
        for k, leg in self.legs.items():
            leg.read({"event": "sse.open", "data": '{"resumed": false}', "id": texts[k]})
        for wish in () if self.split else self._wished:
            self._hand_on(*wish)

    def wishes(self, join: Iterable[str], leave: Iterable[str], start: StartPoint) -> None:
        self._wished.append((tuple(join), tuple(leave), start))
        if not self.split:
            self._hand_on(*self._wished[-1])

    def _hand_on(self, join: tuple[str, ...], leave: tuple[str, ...], start: StartPoint) -> None:
        ((k, leg),) = self.legs.items()
        cursor = start.cursor
        if cursor and not cursor.startswith(f"{k}{COUNT}") and cursor != EARLIEST:
            cursor = BOGUS[1]
        leg.wishes(join, leave, StartPoint(cursor, start.newest))

    def ended(self, commands: Iterable[tuple[int, int]], *, joined: bool) -> None:
        assert commands
        if 0 in self.legs:
            self.legs[0].ended(commands, joined=joined)

    def has_all(self) -> bool:
        return self._next is None and all(leg.has_all() for leg in self.legs.values())
