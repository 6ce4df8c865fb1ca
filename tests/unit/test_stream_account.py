"""The account of a model test finds every fault in the frames of a stream."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from flask_sse_push.history.position import StartPoint
from flask_sse_push.protocol import shard_cursor
from flask_sse_push.protocol.channel import BROADCAST
from flask_sse_push.protocol.cursor import LOST, Cursor
from flask_sse_push.protocol.entry import Publication
from flask_sse_push.protocol.event import make_event
from tests.support.account.records import records_of
from tests.support.account.shards import ShardedStreamAccount
from tests.support.account.stream import StreamAccount
from tests.support.account.verdict import Verdict
from tests.support.simulation import RecordedPrimary
from tests.support.stepping import KEPT

Frames = list[bytes]


def frame(cursor: str | None, data: object, event: str | None = None) -> bytes:
    fields = {"id": cursor, "event": event, "data": json.dumps(data)}
    return "\n".join(f"{name}: {value}" for name, value in fields.items() if value is not None).encode()


def opened(cursor: str, *, resumed: bool = False) -> bytes:
    return frame(cursor, {"resumed": resumed}, "sse.open")


def heartbeat(cursor: str) -> bytes:
    return frame(cursor, {}, "sse.heartbeat")


def reset(cursor: str | None, *channels: str, reason: str = "history") -> bytes:
    return frame(cursor, {"channels": channels, "reason": reason}, "sse.reset")


class Shard:
    """A shard with published events. `cursors` has the cursor of each event by its serial number."""

    def __init__(self, epoch: str = "e0") -> None:
        self.broker = RecordedPrimary(epoch)
        self.account = self.broker.account
        self.cursors: dict[int, str] = {}

    def publish(self, serial: int, *channels: str, exclude: tuple[str, ...] = ()) -> bytes:
        """Publishes an event; returns its frame."""
        body = make_event(str(serial)).encode()
        self.cursors[serial] = str(self.broker.publish([Publication(body, channels, exclude)])[0])
        return frame(self.cursors[serial], serial)

    def position(self) -> str:
        return str(Cursor(self.broker._epoch, self.broker._last))

    def stream(self, *channels: str, start: StartPoint | None = None) -> StreamAccount:
        stream = StreamAccount(self.account, Verdict(strict=True), identities={"k0", "uk0"})
        stream.connect((*channels, BROADCAST), start or StartPoint())
        return stream


def read(stream: StreamAccount | ShardedStreamAccount, frames: Frames) -> None:
    for each in frames:
        for record in records_of(each):
            stream.read(record)
    assert stream.has_all(), "lost: an event never came"


@pytest.fixture
def shard(simulation: None) -> Shard:
    return Shard()


@pytest.fixture
def frames(shard: Shard) -> Frames:
    """Returns the frames that a stream of the channels a and b must get. Frame n has event n."""
    frames = [opened(shard.position()), *(shard.publish(n, "ab"[n % 2]) for n in range(1, 5))]
    shard.publish(5, "c")
    shard.publish(6, "a", exclude=("uk0",))
    return [*frames, heartbeat(shard.position())]


Edit = Callable[[Shard, Frames], Frames]

#: Each fault: its kind, and how to change the frames to produce it.
FAULTS: dict[str, tuple[str, Edit]] = {
    "an event was dropped": ("lost", lambda shard, f: [*f[:2], *f[3:]]),
    "the last event never came": ("lost", lambda shard, f: f[:4]),
    "an event came twice": ("doubled", lambda shard, f: [*f[:3], f[2], *f[3:]]),
    "an event came again much later": ("doubled", lambda shard, f: [*f, f[1]]),
    "two events were swapped": ("lost: .* 2", lambda shard, f: [*f[:2], f[3], f[2], *f[4:]]),
    "a cursor ran ahead of an event": (
        "lost: .* 2",
        lambda shard, f: [*f[:2], heartbeat(shard.cursors[2]), *f[2:]],
    ),
    "a cursor went back": ("disordered: .* back", lambda shard, f: [*f, heartbeat(shard.cursors[4])]),
    "an event had the cursor of another": (
        "disordered: .* not its cursor",
        lambda shard, f: [*f[:2], frame(shard.cursors[3], 2), *f[3:]],
    ),
    "an event was for others": (
        "disordered: .* not for it",
        lambda shard, f: [*f[:5], frame(shard.cursors[5], 5), f[5]],
    ),
    "an event excluded the stream": (
        "disordered: .* not for it",
        lambda shard, f: [*f[:5], frame(shard.cursors[6], 6)],
    ),
    "`sse.open` was missing": ("disordered: .* before `sse.open`", lambda shard, f: f[1:]),
    "`sse.open` came twice": ("disordered: .* opened twice", lambda shard, f: [f[0], *f]),
    "a new stream claims to have resumed": (
        "disordered: .* resumed",
        lambda shard, f: [opened("e0-1", resumed=True), *f[1:]],
    ),
    "a reset without need": (
        "needless",
        lambda shard, f: [*f[:2], reset(shard.cursors[3], "a", "b"), *f[4:]],
    ),
    "a reset of one channel without need": (
        "needless",
        lambda shard, f: [*f[:2], reset(None, "a"), *f[2:]],
    ),
    "a reset because of a cursor that was good": (
        "needless",
        lambda shard, f: [*f, reset(shard.position(), "a", "b", reason="cursor")],
    ),
    "a reset of a channel that the stream does not have": (
        "disordered: .* not its channels",
        lambda shard, f: [*f, reset(None, "c")],
    ),
    "a position of the future": ("future", lambda shard, f: [*f, heartbeat("e0-zzzzzzzzz")]),
    "an epoch that never was": ("never was", lambda shard, f: [*f, heartbeat("e9-1")]),
}


def test_a_clean_stream_is_clean(shard: Shard, frames: Frames) -> None:
    read(shard.stream("a", "b"), frames)


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found(shard: Shard, frames: Frames, fault: str) -> None:
    message, edit = FAULTS[fault]
    with pytest.raises(AssertionError, match=message):
        read(shard.stream("a", "b"), edit(shard, frames))


def test_an_event_in_a_batch_counts_like_any_other(shard: Shard, frames: Frames) -> None:
    def batch(*serials: int) -> bytes:
        events = [{"type": "message", "data": str(n), "id": shard.cursors[n]} for n in serials]
        return frame(shard.cursors[serials[-1]], events, "sse.batch")

    read(shard.stream("a", "b"), [*frames[:2], batch(2, 3), *frames[4:]])
    with pytest.raises(AssertionError, match=r"lost: .* 2"):
        read(shard.stream("a", "b"), [*frames[:2], batch(3), *frames[4:]])


def test_a_stream_continues_after_its_own_cursor(shard: Shard, frames: Frames) -> None:
    start = StartPoint(shard.cursors[2])
    read(shard.stream("a", "b", start=start), [opened(shard.cursors[2], resumed=True), *frames[3:]])
    with pytest.raises(AssertionError, match="not where it was"):
        read(shard.stream("a", "b", start=start), [opened(shard.cursors[3], resumed=True), *frames[4:]])


def test_a_reset_excuses_only_trimmed_events(shard: Shard) -> None:
    start = StartPoint(shard.position())
    later = [shard.publish(n, "a") for n in range(1, KEPT + 3)]
    begin = [opened(start.cursor or ""), reset(None, "a")]
    newest = shard.publish(50, "a")
    read(shard.stream("a", start=start), [*begin, heartbeat(shard.position())])
    with pytest.raises(AssertionError, match="lost"):
        read(shard.stream("a", start=start), [begin[0], *later[-2:], newest])
    stream = shard.stream("a", start=start)
    read(stream, begin)
    shard.publish(51, "a")
    with pytest.raises(AssertionError, match=r"lost: .* 51"):
        read(stream, [heartbeat(shard.position())])


def test_an_invalid_cursor_must_lead_to_a_reset_first(shard: Shard, frames: Frames) -> None:
    right = [opened(LOST), reset(shard.cursors[3], "a", "b", reason="cursor"), *frames[4:]]
    read(shard.stream("a", "b", start=StartPoint("nonsense")), right)
    with pytest.raises(AssertionError, match=r"disordered: .* from where it goes on"):
        read(shard.stream("a", "b", start=StartPoint("nonsense")), [right[0], *frames[4:]])


def test_events_that_a_failover_lost_need_a_reset(shard: Shard, frames: Frames) -> None:
    stream = shard.stream("a", "b")
    read(stream, frames)
    copy = shard.broker.cache  # a copy from before the first event
    shard.account.fork("e1", copy.epoch, copy.last)
    shard.broker.promote(copy, "e1")
    event = shard.publish(60, "a")
    with pytest.raises(AssertionError, match=r"lost: .* not told of a failover's losses"):
        read(stream, [event])
    read(stream, [reset(f"e1-{shard.position().split('-')[1]}", "a", "b", reason="epoch")])


# -- two shards: the channel a lies on the second, d on the first ---------------------------------------


@pytest.fixture
def shards(simulation: None) -> list[Shard]:
    return [Shard("02e000"), Shard("12e000")]


def both(shards: list[Shard], first: str, second: str, *channels: str) -> str:
    """Returns a cursor of a stream of these channels, with a position on each of the two shards."""
    parts = [Cursor(text.split("-")[0], int(text.split("-")[1], 36)) for text in (first, second)]
    return str(shard_cursor.ShardCursor(shard_cursor.channel_hash(channels), tuple(parts)))


def test_each_shard_has_its_own_order(shards: list[Shard]) -> None:
    begin = [shard.position() for shard in shards]
    first, second = shards
    channels_of = {1: ("d",), 2: ("d",), 3: ("a",), 4: ("a", "d")}
    first.publish(1, "d")
    first.publish(2, "d")
    second.publish(3, "a")
    for shard, here in zip(
        shards, "da", strict=True
    ):  # a stream gets the event from the shard of its first channel
        shard.broker.publish([Publication(b"data: 4\n\n", ("a", "d"), here=(here,))])
    last = [shard.position() for shard in shards]

    def cursor(one: str, two: str) -> str:
        return both(shards, one, two, "a", "d")

    def check(*frames: bytes) -> None:
        stream = ShardedStreamAccount(
            [shard.account for shard in shards], channels_of, Verdict(strict=True),
            identities=set(), is_behind=lambda shard: False,
        )  # fmt: skip
        stream.connect(("a", "d"), StartPoint())
        read(stream, [opened(cursor(*begin)), *frames])

    one, two, three = first.cursors[1], first.cursors[2], second.cursors[3]
    check(
        frame(cursor(one, begin[1]), 1), frame(cursor(two, begin[1]), 2),
        frame(cursor(two, three), 3), frame(cursor(two, last[1]), 4),
    )  # fmt: skip
    check(
        frame(cursor(begin[0], three), 3), frame(cursor(one, three), 1),
        frame(cursor(one, last[1]), 4), frame(cursor(two, last[1]), 2),
    )  # fmt: skip
    with pytest.raises(AssertionError, match=r"lost: shard 0 .* 1"):
        check(frame(cursor(two, begin[1]), 2), frame(cursor(two, three), 3), frame(cursor(two, last[1]), 4))
    with pytest.raises(AssertionError, match=r"lost: shard 1 .* 3"):
        check(frame(cursor(one, three), 1), frame(cursor(one, three), 3))
    with pytest.raises(AssertionError, match=r"doubled: shard 0 .* 1"):
        check(frame(cursor(one, begin[1]), 1), frame(cursor(one, begin[1]), 1))
    with pytest.raises(AssertionError, match="an event never came"):
        check(frame(cursor(one, begin[1]), 1), frame(cursor(two, begin[1]), 2), frame(cursor(two, three), 3))
