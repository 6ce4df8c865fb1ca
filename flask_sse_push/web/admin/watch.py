"""Makes all workers report their state while somebody watches: the live part of the admin page.

The page opens an ordinary stream of the channel `sse.admin`. The worker that opens this stream sends a
command to all workers every RENEW seconds. The command makes each worker publish its state on the channel
every EVERY seconds, for LEASE seconds. When no such stream is open any more, no command follows, and the
reports end.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from typing import TYPE_CHECKING, Any

from ...config.channel_policies import ADMIN_CHANNEL
from ...errors import BrokerUnavailable
from ...hub import background
from ...protocol.command import WATCH
from ...protocol.entry import Publication
from ...protocol.event import Event
from . import workers

if TYPE_CHECKING:
    from ..services import Services, Streaming

logger = logging.getLogger(__name__)

#: Seconds between two reports of a worker.
EVERY = 2.0
#: Seconds between two commands, and for how many seconds one command makes workers report.
RENEW, LEASE = 10.0, 25
#: The type of a report.
TYPE = "worker"


class Watch:
    """Reports the state of one worker while somebody watches. Any thread may call the methods.

    :param streaming: the parts of this process that serve streams.
    """

    def __init__(self, services: Services, streaming: Streaming) -> None:
        self._services = services
        self.streaming = streaming
        self._lock = threading.Lock()
        self._until = 0.0  # monotonic time at which the reports end
        self._renew_at = 0.0  # monotonic time of the next command
        self._running = False

    def start(self) -> None:
        """Makes all workers report from now on. Does not block.

        Called when a request opens a stream of `sse.admin`.
        """
        self._renew_at = 0.0
        self.extend(LEASE)

    def extend(self, seconds: int) -> None:
        """Makes this worker report for some seconds from now on. Does not block."""
        with self._lock:
            self._until = max(self._until, time.monotonic() + seconds)
            first, self._running = not self._running, True
        if first:
            background.start("admin", self._run, repeat=False)

    def _run(self) -> None:
        """Reports until nobody watches. This is the body of the thread."""
        began = time.monotonic()
        while self._goes_on():
            try:
                self._report(began)
            except BrokerUnavailable as error:
                logger.debug("the admin page gets no report now: %s", error)
            except Exception:
                logger.exception("this worker cannot report its state to the admin page")
            time.sleep(EVERY)

    def _goes_on(self) -> bool:
        """Whether the reports go on. If not, the next `extend` starts another thread."""
        with self._lock:
            is_current = vars(self._services).get("streaming") is self.streaming
            self._running = is_current and time.monotonic() < self._until
            return self._running

    def _report(self, began: float) -> None:
        now = time.monotonic()
        # The stream of a new page opens a moment after its request: the first command does not wait for it.
        if now >= self._renew_at and (now - began < EVERY or self._has_viewers()):
            self._renew_at = now + RENEW
            self._services.publishing.announcer.command(WATCH, seconds=LEASE)
        state = {**workers.state(self._services), "at": time.time(), "every": EVERY}
        event = Event(json.dumps(state), TYPE, is_json=True)
        publication = Publication(event.encode(), (ADMIN_CHANNEL,), ttl=2 * EVERY)
        self._services.publishing.broker.publish([publication])

    def _has_viewers(self) -> bool:
        return bool(self.streaming.hub.streams(channel=ADMIN_CHANNEL))


def watch_of(services: Services) -> Watch:
    """Returns the watch of this process: a new one after a fork or a restart of the process's parts."""
    streaming: Any = services.streaming
    watch: Watch | None = vars(services).get("admin watch")
    if watch is None or watch.streaming is not streaming:
        watch = vars(services)["admin watch"] = Watch(services, streaming)
    return watch
