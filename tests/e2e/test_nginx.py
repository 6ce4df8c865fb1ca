"""Streams through a real nginx, configured as the README says."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from flask_sse_push import MessageAnnouncer
from tests.support.deadline import eventually
from tests.support.processes import accepts, free_port, need
from tests.support.stream import Stream

from .conftest import Serve

pytestmark = pytest.mark.usefixtures("transport")

CONFIG = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 1000; }}
http {{
    access_log off;
    client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
    uwsgi_temp_path {folder}; scgi_temp_path {folder};
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{upstream};
            proxy_http_version {version};
            proxy_read_timeout 60s;
        }}
    }}
}}
"""


@contextlib.contextmanager
def nginx(folder: Path, upstream: int, version: str = "1.1") -> Iterator[str]:
    """Runs nginx in front of the port `upstream`, to which it speaks HTTP `version`; yields its URL."""
    program = need("nginx")
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(CONFIG.format(folder=folder, port=port, upstream=upstream, version=version))
    process = subprocess.Popen([program, "-c", str(config)], stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: accepts(port), 10)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_nginx_passes_first_bytes_live_and_missed_events_at_once(
    serve: Serve, empty_valkey: str, tmp_path: Path, version: str
) -> None:
    server = serve(heartbeat=60)  # so no heartbeat can push bytes out of a buffer during the test
    announcer = MessageAnnouncer.from_url(empty_valkey)
    with nginx(tmp_path, server.port, version) as url:
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
    with nginx(tmp_path, server.port) as url:
        streams = [Stream(f"{url}/stream?channels=a") for _ in range(100)]
        for stream in streams:
            stream.next_of("sse.open")
        server.process.terminate()
        for stream in streams:
            assert list(stream)[-1].type == "sse.close"
            assert stream.complete
