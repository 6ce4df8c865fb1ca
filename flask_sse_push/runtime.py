"""What one registered blueprint runs on in one process: broker, announcer and hub, made on first use.

Everything is made anew after a fork, so `--preload` and publishing from the master are safe.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from . import brokers, drain, vector, worker
from .announcer import MessageAnnouncer
from .brokers.base import Broker
from .config import Settings
from .cursor import Cursor
from .event import Dumps
from .figures import Figures, Levels
from .guard import Guard, Judge
from .hub import Hub
from .inquiry import Inquiries
from .logs import StreamLog
from .meters import Meters
from .observer import Observer, Observers
from .presence import Presence
from .quotas import Quotas
from .registry import Registry
from .runs import Runs
from .transports import Transports
from .vector import Vector

logger = logging.getLogger(__name__)

#: The inbox of a probe whose echo nobody waits for.
NOBODY = "nobody"


class Streams(NamedTuple):
    """What a process has once it has streams."""

    hub: Hub
    guard: Guard
    inquiries: Inquiries
    runs: Runs

    def close(self) -> None:
        """Ends all; may be called twice."""
        self.runs.close()
        self.guard.close()
        self.hub.close()


class Runtime:
    """The parts of this process. Making it opens nothing."""

    def __init__(self, settings: Settings, dumps: Dumps, observer: Observer, judge: Judge) -> None:
        self.settings = settings
        self._judge = judge
        self._dumps = dumps
        self._observer = observer
        self._clock: Callable[[], float] = time.monotonic
        self._parts: dict[int, dict[str, Any]] = {}  # by pid

    @property
    def broker(self) -> Broker:
        """The broker of this process."""
        return self._part("broker")  # type: ignore[no-any-return]

    @property
    def announcer(self) -> MessageAnnouncer:
        """The publishing side of this process."""
        return self._part("announcer")  # type: ignore[no-any-return]

    @property
    def hub(self) -> Hub:
        """The streams of this process. Its threads start with the first stream."""
        return self._part("streams").hub  # type: ignore[no-any-return]

    @property
    def guard(self) -> Guard:
        """What looks after the rights of this process's streams."""
        return self._part("streams").guard  # type: ignore[no-any-return]

    @property
    def quotas(self) -> Quotas:
        """What users and addresses may still have."""
        return self._part("quotas")  # type: ignore[no-any-return]

    @property
    def inquiries(self) -> Inquiries:
        """What asks all workers about their streams."""
        return self._part("streams").inquiries  # type: ignore[no-any-return]

    @property
    def runs(self) -> Runs:
        """The producers of this process."""
        return self._part("streams").runs  # type: ignore[no-any-return]

    @property
    def transports(self) -> Transports:
        """What brings this process's streams to their sockets."""
        return self._part("transports")  # type: ignore[no-any-return]

    def position(self, ago: float) -> Cursor | Vector:
        """A position that every event of the last `ago` seconds comes after.

        This worker's own, when it has streams; else the broker is asked, which blocks.

        :raises BrokerUnavailable: when it does not answer in time.
        """
        streams = self._open
        position = streams.hub.position() if streams else None
        if position is None:
            position = vector.probe(self.broker, NOBODY)
        return position.earlier(ago)

    @property
    def registry(self) -> Registry:
        """What this process holds, and how many all workers hold together."""
        return self._part("registry")  # type: ignore[no-any-return]

    @property
    def figures(self) -> Figures:
        """What this process counts."""
        return self.meters.figures

    @property
    def meters(self) -> Meters:
        """What this process counts, and who is told."""
        return self._part("meters")  # type: ignore[no-any-return]

    def levels(self) -> Levels:
        """How things stand in this process now."""
        streams = self._open
        return streams.hub.levels() if streams else Levels()

    def is_lonely(self) -> bool:
        """Whether the broker serves one process while gunicorn runs several."""
        return self.settings.broker_url.startswith("memory:") and worker.count() > 1

    def places(self) -> int:
        """How many streams this worker takes."""
        return min(self.settings.max_streams, worker.file_places())

    def request_places(self, places: int) -> int:
        """How many of its `places` are for streams that each hold a place for a request all the time."""
        return min(places, worker.request_places() or places)

    @property
    def _open(self) -> Streams | None:
        """What this process has once it has streams; None before."""
        return self._parts.get(worker.pid, {}).get("streams")

    def _part(self, name: str) -> Any:
        parts = self._parts.get(worker.pid)
        if parts is None:
            parts = self._parts.setdefault(worker.pid, {})
        if name not in parts:
            parts.setdefault(name, self._make(name))
        return parts[name]

    def _make(self, name: str) -> Any:
        """Makes a part. Two threads may do so at once: `setdefault` keeps one, the other was never used."""
        if name == "broker":
            return brokers.connect(self.settings)
        if name == "announcer":
            return MessageAnnouncer(self.broker, self.settings, self._dumps, self.figures.published)
        if name == "transports":
            return Transports(self.settings, self.hub.leave)
        if name == "quotas":
            return Quotas(self.settings, self.registry, self.broker)
        if name == "registry":
            return Registry(self.broker.ledger, self._streams)
        if name == "meters":
            return Meters(self.levels, self.settings.log_totals)
        drain.find_worker()
        if self.is_lonely():
            logger.error(
                "SSE_PUSH_BROKER_URL is memory://, which serves one process, but gunicorn runs %d workers: "
                "streams miss what another worker publishes; set it to a Redis URL",
                worker.count(),
            )
        guard = Guard(self._judge, self.settings.recheck, self.announcer.command)
        registry = self.registry
        observers = [self._observer, registry, self.quotas, guard, self.figures, StreamLog()]
        if self.settings.presence_channels:
            patterns, grace = self.settings.presence_channels, self.settings.presence_grace
            observers.append(Presence(registry, self.broker, patterns, grace))
        hub = Hub(self.broker, self.settings, worker.stops, Observers(*observers), self._clock, self.figures)
        guard.look_after(hub)
        inquiries = Inquiries(hub, self.broker.ledger, self.announcer, lambda: registry.name)
        runs = Runs(self.announcer, registry, hub, self.settings, worker.stops)
        return Streams(hub, guard, inquiries, runs)

    def _streams(self) -> int:
        streams = self._open
        return len(streams.hub) if streams else 0

    def begin_anew(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        """Closes what runs, and goes on with other settings.

        :param clock: monotonic seconds, for heartbeats; tests wind their own.
        """
        self.close()
        self.settings, self._clock = settings, clock

    def close(self) -> None:
        """Ends this process's streams and connections; may be called twice."""
        parts = self._parts.pop(worker.pid, {})
        for name in ("streams", "registry", "meters", "broker"):
            if name in parts:
                parts[name].close()
