"""Clients and a publisher that keep working while servers fail, and record what happened."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Sequence

from flask_sse_push import BrokerUnavailable, MessageAnnouncer

from .stream import Stream


class Reader(threading.Thread):
    """A client that stays connected. `got` has the events that it got: arrival time and number."""

    def __init__(self, url: str, channels: str = "a", cursor: str | None = None) -> None:
        super().__init__(daemon=True)
        self._stream = Stream(f"{url}/stream?channels={channels}", cursor=cursor)
        self._cursor = self._stream.next_of("sse.open").id
        self.got: list[tuple[float, int]] = []
        self.resets = 0
        self.ended = False
        self.start()

    def run(self) -> None:
        try:
            for event in self._stream:
                self._cursor = (
                    event.id or self._cursor
                )  # `Stream.cursor` may belong to an event that was cut off
                if event.type == "sse.reset":
                    self.resets += 1
                elif event.type == "message":
                    self.got.append((event.at, event.json()))
        except (OSError, EOFError, ValueError):
            pass
        self.ended = True

    @property
    def numbers(self) -> list[int]:
        return [number for _, number in self.got]

    def got_event_after(self, time: float) -> bool:
        """Whether an event has come after `time`, a monotonic time."""
        return bool(self.got) and self.got[-1][0] > time

    @property
    def cursor(self) -> str | None:
        return self._cursor

    def close(self) -> None:
        self._stream.close()
        self.join(5)


class Publisher(threading.Thread):
    """Publishes numbers, each until it is acknowledged. `acknowledged` has the times and the numbers."""

    def __init__(
        self,
        url: str,
        pause: float = 0.005,
        channels_of: Callable[[int], Sequence[str]] = lambda number: ["a"],
        first: int = 0,
    ) -> None:
        super().__init__(daemon=True)
        self._announcer = MessageAnnouncer.from_url(url, SSE_PUSH_PUBLISH_TIMEOUT=1.0)
        self._pause = pause
        self._channels_of = channels_of
        self._first = first
        self._token = secrets.token_hex(4)
        self._enough = threading.Event()
        self.acknowledged: list[tuple[float, int]] = []
        self.refused = 0

    def run(self) -> None:
        number = self._first
        while not self._enough.wait(self._pause):
            try:
                self._announcer.publish(
                    number, channel=self._channels_of(number), id=f"{self._token}-{number}"
                )
            except BrokerUnavailable:
                self.refused += 1
                continue
            self.acknowledged.append((time.monotonic(), number))
            number += 1
        self._announcer.close()

    def finish(self) -> None:
        self._enough.set()
        self.join(10)
