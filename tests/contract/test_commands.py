"""Commands over every broker: two workers, real threads."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import pytest
import redis

from flask_sse_push import MessageAnnouncer
from flask_sse_push.brokers.base import Broker
from flask_sse_push.brokers.url import connect_broker
from flask_sse_push.config import Settings
from flask_sse_push.history.position import StartPoint
from flask_sse_push.history.recovery_driver import Recovery
from flask_sse_push.hub.commands import Effect
from flask_sse_push.hub.hub import Hub
from flask_sse_push.hub.stream import Stream
from flask_sse_push.protocol.command import COMMAND_CHANNEL
from tests.support.deadline import eventually

SETTINGS = Settings(linger=0.0, probe=1.0)


class Record(Stream):
    """A stream that keeps what it gets."""

    def __init__(self, hub: Hub, connection: str, user_id: str | None, *channels: str) -> None:
        super().__init__(connection, user_id, channels)
        self.got = b""
        self.ended = False
        self.hub = hub
        hub.open(self)
        self.recovery = hub.recovery(self.subscribed, StartPoint())
        self.follow()

    def follow(self) -> None:
        """Starts recovery; then the stream joins its group."""
        eventually(lambda: self._joined(self.recovery), every=0.001)

    def _joined(self, recovery: Recovery) -> bool:
        frames = self.hub.follow(self, recovery, 1)
        self.got += frames or b""
        return frames is None

    def write(self, chunk: bytes) -> None:
        if not self.ended:
            self.got += chunk

    def end(self, frame: bytes) -> None:
        if not self.ended:
            self.got += frame
            self.ended = True
            self.hub.leave(self)

    def cut_if_stuck(self, now: float) -> bool:
        return False


@pytest.fixture
def make_hub(broker: Broker) -> Iterator[Callable[[], Hub]]:
    with ExitStack() as hubs:

        def make() -> Hub:
            hub = Hub(broker, SETTINGS)
            hubs.callback(hub.close)
            return hub

        yield make


@pytest.fixture
def announcer(broker: Broker) -> MessageAnnouncer:
    return MessageAnnouncer(broker, SETTINGS)


def gets_commands(hub: Hub) -> bool:
    cache = hub._history_cache.caches.get(COMMAND_CHANNEL)
    return cache is not None and cache.live


def test_a_user_is_disconnected_on_all_workers(
    make_hub: Callable[[], Hub], announcer: MessageAnnouncer
) -> None:
    hubs = make_hub(), make_hub()
    sevens = [Record(hub, f"seven-{at}", "7", "a") for at, hub in enumerate(hubs)]
    eights = [Record(hub, f"eight-{at}", "8", "a") for at, hub in enumerate(hubs)]
    for hub in hubs:
        eventually(lambda hub=hub: gets_commands(hub))  # type: ignore[misc]
    announcer.publish("before", channel="a")
    announcer.disconnect(user_id=7)
    announcer.publish("after", channel="a")
    for stream in eights:
        eventually(lambda stream=stream: b"after" in stream.got)  # type: ignore[misc]
        assert not stream.ended
    for stream in sevens:
        eventually(lambda stream=stream: stream.ended)  # type: ignore[misc]
        assert b"before" in stream.got
        assert b"after" not in stream.got
        assert b'"reason":"disconnected","reconnect":true' in stream.got


def test_one_stream_or_the_streams_of_a_channel_can_be_named(
    make_hub: Callable[[], Hub], announcer: MessageAnnouncer
) -> None:
    hub = make_hub()
    one, two, three = (Record(hub, name, None, "a", name) for name in ("one", "two", "three"))
    eventually(lambda: gets_commands(hub))
    announcer.disconnect(connection="one", reconnect=False)
    eventually(lambda: one.ended)
    assert b'"reconnect":false' in one.got
    announcer.disconnect(channel="two")
    eventually(lambda: two.ended)
    announcer.disconnect(connection="three", channel="two")
    announcer.disconnect(connection="nobody")
    announcer.command("disconnect", reconnect=True)  # without criteria it must not close every stream
    announcer.command("disconnect", reconnect=True, user_id="", channel="a")
    announcer.publish("still open", channel="three")
    eventually(lambda: b"still open" in three.got)
    announcer.disconnect(channel="a", connection="three")
    eventually(lambda: three.ended)
    assert len(hub) == 0


def test_commands_sent_while_the_link_was_broken_are_handled_once_and_in_order(redis_url: str) -> None:
    settings = Settings(broker_url=redis_url, prefix=f"test-{uuid.uuid4().hex}", probe=0.5)
    broker = connect_broker(settings)
    announcer, hub = MessageAnnouncer(broker, settings), Hub(broker, settings)
    handled: list[int] = []

    def note(arguments: Mapping[str, Any]) -> list[Effect]:
        handled.append(arguments["n"])
        return []

    hub.commands.on("note", note)
    with redis.Redis.from_url(redis_url) as client:
        stream = Record(hub, "one", "7", "a")
        eventually(lambda: gets_commands(hub))
        for n in range(100):
            announcer.command("note", n=n)
            if n % 10 == 0:
                client.client_kill_filter(_type="pubsub")
        announcer.publish("last", channel="a")
        eventually(lambda: b"last" in stream.got)
    assert handled == list(range(100))
    hub.close()
    broker.close()


def test_a_worker_learns_that_commands_were_lost(redis_url: str) -> None:
    settings = Settings(broker_url=redis_url, prefix=f"test-{uuid.uuid4().hex}", probe=0.5)
    broker = connect_broker(settings)
    hub = Hub(broker, settings)
    lost: list[bool] = []
    hub.commands.on_lost(lambda: lost.append(True))
    with redis.Redis.from_url(redis_url) as client:
        Record(hub, "one", "7", "a")
        eventually(lambda: gets_commands(hub))
        assert not lost
        client.delete("{" + settings.prefix + ":0}:state")
        eventually(lambda: lost)
    hub.close()
    broker.close()


def test_a_worker_without_streams_leaves_the_channel(
    make_hub: Callable[[], Hub], announcer: MessageAnnouncer
) -> None:
    hub = make_hub()
    for round in range(2):
        stream = Record(hub, f"round-{round}", None, "a")
        eventually(lambda: gets_commands(hub))
        announcer.disconnect(connection=stream.connection)
        eventually(lambda stream=stream: stream.ended)  # type: ignore[misc]
        eventually(lambda: COMMAND_CHANNEL not in hub._history_cache.caches)


def test_commands_before_a_workers_first_stream_are_handled_with_their_time(
    make_hub: Callable[[], Hub], announcer: MessageAnnouncer
) -> None:
    hub = make_hub()
    handled: list[tuple[int, float]] = []

    def late(arguments: Mapping[str, Any], at: float) -> list[Effect]:
        handled.append((arguments["n"], at))
        return []

    hub.commands.on("late", lambda arguments: [], late)
    began = time.monotonic()
    announcer.command("late", n=1)
    announcer.command("without a late handler")
    between = time.monotonic()
    announcer.command("late", n=2)
    Record(hub, "one", None, "news")
    eventually(lambda: len(handled) == 2)
    assert [n for n, _ in handled] == [1, 2]
    # The clock of the ids is the same machine's here, but may be set while the test runs.
    assert began - 0.1 < handled[0][1] < handled[1][1] <= time.monotonic() + 0.1
    assert between - 0.1 < handled[1][1]
    Record(hub, "two", None, "news")
    announcer.command("late", n=3)
    assert len(handled) == 2
