"""Makes the broker, the hub and the other parts that one blueprint uses in one process, on first use.

A process that only publishes makes `Publishing`: a broker, an announcer and counters. A process that serves
streams also makes `Streaming`: a hub and the parts around it. A forked child makes new parts and does not use
the parts of its parent. So gunicorn's `--preload`, and publishing from gunicorn's master process, are safe.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

from flask import Request, has_request_context, request

from ..auth.limits import Limits
from ..auth.logouts import UnsentLogouts
from ..auth.recheck import FindForbidden, Recheck
from ..brokers import forks, native_threads
from ..brokers.announcer import MessageAnnouncer
from ..brokers.base import NO_INBOX, Broker, probe_all
from ..brokers.url import connect_broker, serves_one_process
from ..config import SHARE_BROKER, Settings
from ..config.channel_policies import open_user_channel
from ..errors import BrokerUnavailable
from ..hub.commands import Effect
from ..hub.counters import Counters, Gauges
from ..hub.hub import Hub
from ..hub.listener import StreamListener
from ..monitoring.log import StreamLog
from ..monitoring.refusals import RECENT, RecentRefusal
from ..monitoring.reporter import Reporter
from ..presence.presence import Presence
from ..presence.query import Answer, WorkerQueries
from ..presence.worker_counts import WorkerCounts
from ..protocol.command import REVOKE, REVOKE_SESSION, WATCH
from ..protocol.data import Dumps
from ..protocol.shard_cursor import StreamCursor
from ..runs.joining import JOINING
from ..runs.manager import Runs
from ..transports import processes, wsgi_server
from ..transports.selection import Transports
from .capacity import max_streams
from .cors import check_origin

logger = logging.getLogger(__name__)

Made = TypeVar("Made")


class Publishing(NamedTuple):
    """The parts of a process that publish events."""

    broker: Broker
    announcer: MessageAnnouncer
    counters: Counters
    reporter: Reporter


class Streaming(NamedTuple):
    """The parts of a process that serve streams. Their threads start with the first stream."""

    hub: Hub
    limits: Limits
    recheck: Recheck
    logouts: UnsentLogouts
    worker_counts: WorkerCounts
    worker_queries: WorkerQueries
    runs: Runs
    transports: Transports
    max_streams: int  # at most this many streams are open on this worker
    max_waiting: int  # at most this many streams may each occupy a thread or connection of the server

    def close(self) -> None:
        """Closes the streams and ends the threads. May be called twice."""
        self.runs.close()
        self.recheck.close()
        self.logouts.close()
        self.hub.close()
        self.worker_counts.close()


class _MadeOnce(Generic[Made]):
    """A descriptor for an attribute of `Services`. The first access makes the value, under a lock.

    The value is then stored in the instance's `__dict__`, where Python finds the value without calling the
    descriptor. `functools.cached_property` does not fit: in Python 3.11 all instances share one lock, and
    from 3.12 on there is no lock.
    """

    def __init__(self, make: Callable[[Any], Made]) -> None:
        self._make = make
        self._name = make.__name__
        self.__doc__ = make.__doc__

    def __get__(self, services: Services, owner: type) -> Made:
        parts = vars(services)
        # Each lock is also made on first use, because gevent may replace `threading.Lock` after this module
        # was imported. `setdefault` is atomic, so all threads get the same lock and the same value. Native
        # threads have a lock of their own: gevent's locks can hang if they and greenlets wait for one.
        native = native_threads.is_native()
        lock = native_threads.lock() if native else threading.Lock()
        with parts.setdefault(f"{self._name} {'native ' * native}lock", lock):
            if self._name not in parts:
                parts.setdefault(self._name, self._make(services))
            made: Made = parts[self._name]
            return made


class Services:
    """Makes and closes the parts of this process: broker, hub and others. Any thread may call the methods.

    The constructor opens no connection.

    :param dumps: a function that returns data as JSON text.
    :param listener: a stream listener; it is called before the other listeners of a stream.
    :param find_forbidden: a function that returns the channels that an open stream must leave; `Recheck`
        calls this function.
    :param root: the app's `root_path`.
    """

    def __init__(
        self,
        settings: Settings,
        dumps: Dumps,
        listener: StreamListener,
        find_forbidden: FindForbidden,
        root: str | None = None,
    ) -> None:
        self.settings = settings
        self._find_forbidden = find_forbidden
        self._dumps = dumps
        self._root = root
        self._listener = listener
        self._clock: Callable[[], float] = time.monotonic
        #: The newest refusals of this process.
        self.refusals: deque[RecentRefusal] = deque(maxlen=RECENT)
        forks.watch(self)

    @_MadeOnce
    def publishing(self) -> Publishing:
        """The parts that publish events. They are made on first use."""
        broker = connect_broker(self.settings, self._root)
        if processes.serves_app(_environ()):
            broker.expect_to_declare()
        reporter = Reporter(self.gauges, self.settings.log_totals)
        counters = reporter.counters
        announcer = MessageAnnouncer(broker, self.settings, self._dumps, counters.published)
        return Publishing(broker, announcer, counters, reporter)

    @_MadeOnce
    def streaming(self) -> Streaming:
        """The parts that serve streams. They are made on first use, in the thread that serves requests."""
        native_threads.refuse_native()
        wsgi_server.prepare()
        self._check_memory()
        self._check_user_channels()
        settings, (broker, announcer, counters, _) = self.settings, self.publishing
        worker_counts = WorkerCounts(broker.counts, lambda: len(hub))
        limits = Limits(settings, worker_counts, broker)
        recheck = Recheck(self._find_forbidden, settings.recheck)
        listeners = [self._listener, worker_counts, recheck, counters, StreamLog()]
        if settings.policies.have_presence:
            listeners.append(Presence(worker_counts, broker, settings.policies, settings.presence_grace))
        hub = Hub(broker, settings, wsgi_server.is_stopping, listeners, self._clock, counters)
        recheck.attach(hub)
        hub.join_missed(JOINING)
        hub.commands.on(WATCH, self._watch)
        most = max_streams(settings)
        return Streaming(
            hub,
            limits,
            recheck,
            UnsentLogouts(hub, announcer.command),
            worker_counts,
            WorkerQueries(hub, broker.counts, announcer, lambda: worker_counts.name, self._find_answer),
            Runs(announcer, worker_counts, hub, settings, wsgi_server.is_stopping),
            Transports(settings, hub.leave),
            most,
            min(most, wsgi_server.request_places() or most),
        )

    def _find_answer(self, what: str) -> Answer | None:
        """Returns the function that answers a kind of query of the admin page; None for an unknown kind."""
        from .admin.answers import answer_of  # only the admin page asks such queries

        return answer_of(what, self)

    def _watch(self, arguments: Mapping[str, Any]) -> list[Effect]:
        """Handles the command that makes workers report to open admin pages."""
        return [partial(self._report_to_admins, arguments["seconds"])]

    def _report_to_admins(self, seconds: int) -> None:
        from .admin.watch import watch_of  # only while an admin page is open

        watch_of(self).extend(seconds)

    def check_origin(self, request: Request) -> None:
        """Checks that the request comes from a page of the app, from an allowed origin, or from no page.

        :raises Refused: 403, if the request comes from any other page.
        """
        check_origin(request, self.settings.cors_origins)

    @property
    def _open_streaming(self) -> Streaming | None:
        """The parts that serve streams; None if they were not made yet."""
        return vars(self).get("streaming")

    def position(self, began: float) -> StreamCursor:
        """Returns a position from before every event since the monotonic time `began`.

        A worker with streams already knows its position, and does not block. Any other process calls the
        broker, and blocks until the broker answers.

        :raises BrokerUnavailable: if the broker does not answer in time.
        """
        streaming = self._open_streaming
        # In a native thread the hub's lock, a lock of gevent, could hang.
        position = streaming.hub.position() if streaming and not native_threads.is_native() else None
        if position is None:
            position = probe_all(self.publishing.broker, NO_INBOX)
        return position.earlier(time.monotonic() - began)

    def command_position(self, began: float) -> str:
        """Returns a cursor from before every command since the monotonic time `began`. Blocks for one call.

        :raises BrokerUnavailable: if the broker does not answer in time.
        """
        first = self.publishing.broker.shards[0]  # all commands are published on the first shard
        return str(first.probe(NO_INBOX).earlier(time.monotonic() - began))

    def gauges(self) -> Gauges:
        """Returns the gauges of this process. All gauges are zero if the process has not served streams."""
        streaming = self._open_streaming
        if streaming is None:
            return Gauges()
        return streaming.hub.gauges()._replace(recheck_lag=streaming.recheck.lag())

    def broker_not_shared(self) -> str | None:
        """Returns which processes serve the app, if there are several and the broker works for one only."""
        if not serves_one_process(self.settings):
            return None
        return processes.several(_environ())

    def _check_memory(self) -> None:
        """Logs what goes wrong with `memory://` in the way in which this process runs."""
        several = self.broker_not_shared()
        if several:
            logger.error(
                "SSE_PUSH_BROKER_URL is memory://, which serves one process, but %s: streams miss the events "
                "that other processes publish; %s",
                several,
                SHARE_BROKER,
            )
        elif serves_one_process(self.settings) and processes.is_reloaded():
            logger.warning(
                "SSE_PUSH_BROKER_URL is memory://, which begins anew at each reload of the app: clients then "
                "get sse.reset, and miss what was published meanwhile; %s",
                SHARE_BROKER,
            )

    def _check_user_channels(self) -> None:
        """Logs a setting that was written for the channels of users, and that opens them to everybody."""
        found = open_user_channel(self.settings)
        if found is not None and found.is_named:
            text = "%s lets everybody listen to the channel %s of one user; take it out if that is wrong"
            logger.warning(text, found.opened_by, found.channel)

    def log_out(self, user_id: str | None = None, session: str | None = None) -> None:
        """Closes the streams of a user who logs out, or of one session, on all workers. Never raises.

        If the broker does not answer, this worker closes its own streams of the user now. The other workers
        close the user's streams when the broker is back.
        """
        command = REVOKE if session is None else REVOKE_SESSION
        whose = {"user_id": user_id} if session is None else {"session": session}
        arguments = {**whose, "reason": "logout"}
        try:
            self.publishing.announcer.command(command, **arguments)
        except BrokerUnavailable as error:
            logger.warning("cannot tell the other workers of a logout now, trying again: %s", error)
            self.streaming.logouts.add(command, arguments)

    def restart(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        """Closes all parts. The next use makes new parts with the given settings.

        :param clock: a function that returns monotonic seconds, for heartbeats and batches. Tests pass a
            clock of their own.
        """
        self.close()
        self.settings, self._clock = settings, clock

    def close(self) -> None:
        """Closes the streams and connections of this process. May be called twice."""
        streaming, publishing = self._take("streaming"), self._take("publishing")
        if streaming is not None:
            streaming.close()
        if publishing is not None:
            publishing.reporter.close()
            publishing.broker.close()

    def _take(self, name: str) -> Any:
        return vars(self).pop(name, None)

    def after_fork(self) -> None:
        """Forgets the parts and locks of the parent process. Called in a forked child.

        The locks cannot be used, because another thread of the parent may have held them during the fork.
        """
        for name in ("publishing", "streaming"):
            self._take(f"{name} lock")
            self._take(f"{name} native lock")
            forks.keep(self._take(name))


def _environ() -> Mapping[str, Any]:
    """Returns the WSGI environment of the current request; empty outside of requests."""
    return request.environ if has_request_context() else {}
