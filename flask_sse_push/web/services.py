"""What one registered blueprint runs on in one process: broker, announcer and hub, made on first use.

Everything is made anew after a fork, so `--preload` and publishing from the master are safe.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from ..announcer import MessageAnnouncer
from ..auth.limits import Limits
from ..auth.recheck import FindForbidden, Recheck
from ..brokers.base import NO_INBOX, Broker, probe_all
from ..brokers.url import connect_broker
from ..config import Settings
from ..errors import BrokerUnavailable
from ..hub.counters import Counters, Gauges
from ..hub.hub import Hub
from ..hub.listener import StreamListener, StreamListeners
from ..monitoring.log import StreamLog
from ..monitoring.reporter import Reporter
from ..presence.presence import Presence
from ..presence.query import WorkerQueries
from ..presence.worker_counts import WorkerCounts
from ..protocol.command import REVOKE
from ..protocol.event import Dumps
from ..protocol.shard_cursor import StreamCursor
from ..runs import Runs
from ..transports import server
from ..transports.selection import Transports

logger = logging.getLogger(__name__)


class Streams(NamedTuple):
    """What a process has once it has streams."""

    hub: Hub
    recheck: Recheck
    worker_queries: WorkerQueries
    runs: Runs

    def close(self) -> None:
        """Ends all; may be called twice."""
        self.runs.close()
        self.recheck.close()
        self.hub.close()


class Services:
    """The parts of this process. Making it opens nothing."""

    def __init__(
        self, settings: Settings, dumps: Dumps, listener: StreamListener, find_forbidden: FindForbidden
    ) -> None:
        self.settings = settings
        self._find_forbidden = find_forbidden
        self._dumps = dumps
        self._listener = listener
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
    def recheck(self) -> Recheck:
        """What looks after the rights of this process's streams."""
        return self._part("streams").recheck  # type: ignore[no-any-return]

    @property
    def limits(self) -> Limits:
        """What users and addresses may still have."""
        return self._part("quotas")  # type: ignore[no-any-return]

    @property
    def worker_queries(self) -> WorkerQueries:
        """What asks all workers about their streams."""
        return self._part("streams").worker_queries  # type: ignore[no-any-return]

    @property
    def runs(self) -> Runs:
        """The producers of this process."""
        return self._part("streams").runs  # type: ignore[no-any-return]

    @property
    def transports(self) -> Transports:
        """What brings this process's streams to their sockets."""
        return self._part("transports")  # type: ignore[no-any-return]

    def position(self, ago: float) -> StreamCursor:
        """A position that every event of the last `ago` seconds comes after.

        This worker's own, when it has streams; else the broker is asked, which blocks.

        :raises BrokerUnavailable: when it does not answer in time.
        """
        streams = self._open
        position = streams.hub.position() if streams else None
        if position is None:
            position = probe_all(self.broker, NO_INBOX)
        return position.earlier(ago)

    @property
    def worker_counts(self) -> WorkerCounts:
        """What this process holds, and how many all workers hold together."""
        return self._part("registry")  # type: ignore[no-any-return]

    @property
    def counters(self) -> Counters:
        """What this process counts."""
        return self.reporter.counters

    @property
    def reporter(self) -> Reporter:
        """What this process counts, and who is told."""
        return self._part("meters")  # type: ignore[no-any-return]

    def gauges(self) -> Gauges:
        """How things stand in this process now."""
        streams = self._open
        return streams.hub.gauges() if streams else Gauges()

    def broker_not_shared(self) -> bool:
        """Whether the broker serves one process while gunicorn runs several."""
        return self.settings.broker_url.startswith("memory:") and server.count() > 1

    def places(self) -> int:
        """How many streams this worker takes."""
        return min(self.settings.max_streams, server.file_places())

    def request_places(self, places: int) -> int:
        """How many of its `places` are for streams that each hold a place for a request all the time."""
        return min(places, server.request_places() or places)

    @property
    def _open(self) -> Streams | None:
        """What this process has once it has streams; None before."""
        return self._parts.get(server.pid, {}).get("streams")

    def _part(self, name: str) -> Any:
        parts = self._parts.get(server.pid)
        if parts is None:
            parts = self._parts.setdefault(server.pid, {})
        if name not in parts:
            parts.setdefault(name, self._make(name))
        return parts[name]

    def _make(self, name: str) -> Any:
        """Makes a part. Two threads may do so at once: `setdefault` keeps one, the other was never used."""
        if name == "broker":
            return connect_broker(self.settings)
        if name == "announcer":
            return MessageAnnouncer(self.broker, self.settings, self._dumps, self.counters.published)
        if name == "transports":
            return Transports(self.settings, self.hub.leave)
        if name == "quotas":
            return Limits(self.settings, self.worker_counts, self.broker)
        if name == "registry":
            return WorkerCounts(self.broker.counts, self._streams)
        if name == "meters":
            return Reporter(self.gauges, self.settings.log_totals)
        server.find_worker()
        if self.broker_not_shared():
            logger.error(
                "SSE_PUSH_BROKER_URL is memory://, which serves one process, but gunicorn runs %d workers: "
                "streams miss what another worker publishes; set it to a Redis URL",
                server.count(),
            )
        recheck = Recheck(self._find_forbidden, self.settings.recheck, self.announcer.command)
        worker_counts = self.worker_counts
        listeners = [self._listener, worker_counts, self.limits, recheck, self.counters, StreamLog()]
        if self.settings.presence_channels:
            patterns, grace = self.settings.presence_channels, self.settings.presence_grace
            listeners.append(Presence(worker_counts, self.broker, patterns, grace))
        hub = Hub(
            self.broker, self.settings, server.stops, StreamListeners(*listeners), self._clock, self.counters
        )
        recheck.look_after(hub)
        worker_queries = WorkerQueries(hub, self.broker.counts, self.announcer, lambda: worker_counts.name)
        runs = Runs(self.announcer, worker_counts, hub, self.settings, server.stops)
        return Streams(hub, recheck, worker_queries, runs)

    def _streams(self) -> int:
        streams = self._open
        return len(streams.hub) if streams else 0

    def begin_anew(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        """Closes what runs, and goes on with other settings.

        :param clock: monotonic seconds, for heartbeats; tests wind their own.
        """
        self.close()
        self.settings, self._clock = settings, clock

    def log_out(self, user_id: str) -> None:
        """Ends the streams of a user who logs out, on all workers. Never raises.

        When the broker does not answer, this worker's streams end now, and the others' when it is back.
        """
        arguments = {"user_id": user_id, "channel": None, "reason": "logout"}
        try:
            self.announcer.command(REVOKE, **arguments)
        except BrokerUnavailable as error:
            logger.warning("the other workers will hear of a logout when the broker is back: %s", error)
            self.recheck.revoke_later(**arguments)

    def close(self) -> None:
        """Ends this process's streams and connections; may be called twice."""
        parts = self._parts.pop(server.pid, {})
        for name in ("streams", "registry", "meters", "broker"):
            if name in parts:
                parts[name].close()
