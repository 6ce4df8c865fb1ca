"""How long events take to the sockets: the histogram compared with what the clients measure."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import httpx
import pytest

from flask_sse_push import MessageAnnouncer
from flask_sse_push.hub.latency import INTERVAL
from flask_sse_push.protocol import cursor
from tests.support.deadline import eventually
from tests.support.processes import Gunicorn
from tests.support.scrape import scrape
from tests.support.stream import Received, Stream

from .conftest import Serve

#: By how many seconds a measured time may differ from the truth.
PRECISION = 0.005
#: More bytes than the kernel takes for a client that does not read.
BIG = 8_000_000


@pytest.fixture
def announcer(empty_valkey: str) -> Iterator[MessageAnnouncer]:
    announcer = MessageAnnouncer.from_url(empty_valkey, SSE_PUSH_MAX_MESSAGE=20_000_000)
    yield announcer
    announcer.close()


class Measured:
    """The times that a worker has measured since the last look."""

    def __init__(self, server: Gunicorn, http: httpx.Client) -> None:
        self._server, self._http = server, http
        self._seen = 0.0, 0.0
        scrape(http, f"{server.url}/stream")  # from now on, the worker measures

    def next(self) -> float:
        """Waits until the worker has measured one more event. Returns its seconds."""

        def more() -> tuple[float, float] | None:
            samples = scrape(self._http, f"{self._server.url}/stream")
            now = samples.get_value("socket_latency_seconds_count", "0")
            return (
                (now, samples.get_value("socket_latency_seconds_sum", "0")) if now > self._seen[0] else None
            )

        count, total = eventually(more) or (0.0, 0.0)
        before, self._seen = self._seen, (count, total)
        assert count == before[0] + 1
        return total - before[1]


def seconds_since_stored(event: Received) -> float:
    """The seconds from the broker's time of an event, which its id is, until the client had it."""
    found = cursor.parse(event.id or "")
    assert found is not None
    return time.time() - (time.monotonic() - event.at) - found.id / 1e6


def test_the_histogram_has_the_time_until_the_kernel_had_the_event(
    serve: Serve, http: httpx.Client, announcer: MessageAnnouncer, transport: str
) -> None:
    server = serve(
        "tests.apps.monitored:app", probe=0.1, drain=0, heartbeat=60, max_buffer=2 * BIG, max_message=2 * BIG
    )
    measured = Measured(server, http)
    with Stream(f"{server.url}/stream?channels=a") as stream:
        stream.next_of("sse.open")
        announcer.publish("1", channel="a")
        truth = seconds_since_stored(stream.next_of("message"))
        assert -PRECISION < measured.next() < truth + PRECISION

        # A worker that has no time: only the broker's time of the event shows the delay.
        time.sleep(INTERVAL)
        [pid] = server.worker_pids()
        os.kill(pid, signal.SIGSTOP)
        announcer.publish("2", channel="a")
        time.sleep(0.4)
        os.kill(pid, signal.SIGCONT)
        truth = seconds_since_stored(stream.next_of("message"))
        assert 0.4 - PRECISION < measured.next() < truth + PRECISION

    # Missed events are no deliveries.
    time.sleep(INTERVAL)
    announcer.publish("missed", channel="b")
    with Stream(f"{server.url}/stream?channels=b&last=1", receive_buffer=65_536) as stream:
        assert stream.next_of("message").data == "missed"
        # A client that does not read: the event waits in the worker.
        announcer.publish("x" * BIG, channel="b")
        eventually(lambda: scrape(http, f"{server.url}/stream").get_value("events_delivered_total") == 3)
        time.sleep(0.4)
        truth = seconds_since_stored(stream.next_of("message"))
        assert 0.4 - PRECISION < measured.next() < truth + PRECISION
