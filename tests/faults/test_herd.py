"""A deploy behind a proxy that answers 502 for a while sends a herd of browsers away: FAULTS 15."""

from __future__ import annotations

import http.server
import json
import signal
import subprocess
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flask_sse_push import MessageAnnouncer
from tests.support.deadline import eventually, stretched
from tests.support.figures import Counters
from tests.support.processes import ROOT, need
from tests.support.scene import Valkey, look_inside, servers

COUNT = 300
CHANNELS = ("news", "sport")


class Herd:
    """The project's own browser client, many times in one Node process."""

    def __init__(self, url: str) -> None:
        command = [need("node"), "herd.mjs", url, str(COUNT)]
        self.process = subprocess.Popen(command, cwd=ROOT / "tests" / "js", stdout=subprocess.PIPE)
        self.told: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.told.append(json.loads(line))

    def states(self) -> Counter[str]:
        """How many clients are in each state."""
        last = {each["client"]: each["what"] for each in self.told if each["what"] != "event"}
        return Counter(last.values())

    def heard(self, data: str) -> int:
        """How many clients got the event."""
        return len({each["client"] for each in self.told if each["what"] == "event" and each["data"] == data})

    def close(self) -> None:
        self.process.kill()
        self.process.wait(60)
        self._reader.join(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextmanager
def bad_gateway(port: int) -> Iterator[list[tuple[float, str]]]:
    """Answers 502 with a page of HTML, as nginx does; yields the arrivals: when, and for what path."""
    arrivals: list[tuple[float, str]] = []

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            arrivals.append((time.monotonic(), self.path))
            body = b"<html><h1>502 Bad Gateway</h1></html>"
            self.send_response(502)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield arrivals
    finally:
        server.shutdown()
        server.server_close()
        thread.join(60)


def busiest(times: Sequence[float], seconds: float) -> int:
    """The most arrivals within any `seconds`."""
    times = sorted(times)
    return max((bisect_left(times, at + seconds) - n for n, at in enumerate(times)), default=0)


def test_15_a_herd_comes_back_spread_and_by_itself(valkey: Valkey, figures: Counters, tmp_path: Path) -> None:
    announcer = MessageAnnouncer.from_url(valkey.url)
    with servers(valkey.url, tmp_path, transports=("hijack",), retry=3) as (server,):
        port, url = server.port, f"{server.url}/stream?channels={','.join(CHANNELS)}"
        herd = Herd(url)
        try:
            eventually(lambda: herd.states()["open"] == COUNT, 30)
            announcer.publish("before", channel="news")
            eventually(lambda: herd.heard("before") == COUNT, 10)
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(60) == 0
            with bad_gateway(port) as arrivals:
                announcer.publish("missed", channel="news")
                time.sleep(4)  # the length of the outage
                eventually(lambda: len({path for _, path in arrivals}) >= COUNT / 2)
                refused = list(arrivals)
            with servers(valkey.url, tmp_path / "next", transports=("hijack",), ports=[port]) as (server,):
                began = time.monotonic()
                eventually(lambda: herd.states()["open"] == COUNT, 35)
                back = time.monotonic() - began
                eventually(lambda: herd.heard("missed") == COUNT, 10)
                calls = next(iter(look_inside(server, 1).values()))["history_calls"]
        finally:
            herd.close()
            announcer.close()
    missed = [each for each in herd.told if each["what"] == "event" and each["data"] == "missed"]
    got = Counter(each["client"] for each in missed)
    firsts = {path: at for at, path in reversed(refused)}
    most = busiest(list(firsts.values()), 0.5) / COUNT
    figures.note(
        refused_with_502=len(refused),
        first_arrivals=len(firsts),
        busiest_half_second=most,
        all_back_after=back,
        history_calls=calls,
    )
    assert len(firsts) >= COUNT / 2, "few met the 502"
    # Half a second of the three over which the server spread them, and chance, and a machine that stutters.
    assert most <= 0.6
    assert back <= stretched(35)
    assert set(got.values()) == {1}, "each got what it missed, once"
    assert calls <= COUNT / 5 + back, "clients that wait share the answers"
