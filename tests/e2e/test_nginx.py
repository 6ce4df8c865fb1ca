"""Streams through a real nginx, configured as the README says."""

from __future__ import annotations

from pathlib import Path

import pytest

from flask_sse_push import MessageAnnouncer
from tests.support.nginx import nginx_before
from tests.support.stream import Stream

from .conftest import Serve

pytestmark = pytest.mark.usefixtures("transport")


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_nginx_passes_first_bytes_live_and_missed_events_at_once(
    serve: Serve, empty_valkey: str, tmp_path: Path, version: str
) -> None:
    server = serve(heartbeat=60)  # so no heartbeat can push bytes out of a buffer during the test
    announcer = MessageAnnouncer.from_url(empty_valkey)
    with nginx_before(server.port, tmp_path, version) as url:
        with Stream(f"{url}/stream?channels=a") as stream:
            stream.next_of("sse.open")
            assert "x-accel-buffering" not in stream.headers  # nginx reads this header and removes it
            for n in range(5):
                announcer.publish(n, channel="a")
                assert stream.next_of("message").json() == n
        announcer.publish("missed", channel="a")
        with Stream(f"{url}/stream?channels=a", cursor=stream.cursor) as stream:
            assert stream.next().json()["resumed"] is True
            assert stream.next().data == "missed"


def test_a_hundred_streams_through_nginx_end_with_a_close(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    with nginx_before(server.port, tmp_path) as url:
        streams = [Stream(f"{url}/stream?channels=a") for _ in range(100)]
        for stream in streams:
            stream.next_of("sse.open")
        server.process.terminate()
        for stream in streams:
            assert list(stream)[-1].type == "sse.close"
            assert stream.complete
