"""`make demo`, as it stands: gunicorn with the project's gunicorn.conf.py, the example app and its ticker."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from example_app.signin import DEMO_PASSWORDS
from tests.support.deadline import eventually
from tests.support.processes import ROOT, free_port
from tests.support.stream import Stream

#: Seconds that Ctrl-C may take to end everything.
LONGEST_END = 3.0


@dataclass
class Demo:
    """All processes of a demo: a group as a shell makes one, and the ticker, which has its own."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def members(self) -> dict[int, str]:
        """The command lines of those that live."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                state, _, group = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:  # it ended meanwhile
                continue
            ours = int(group) == self.process.pid or f"--parent {self.process.pid} " in line
            if ours and state != "Z":
                found[int(folder.name)] = line
        return found

    def running(self, part: str) -> list[int]:
        """Pids of those whose command line has `part`."""
        return [pid for pid, line in self.members().items() if part in line]

    def press_ctrl_c(self) -> None:
        """Sends SIGINT to the whole group, as a terminal does."""
        os.killpg(self.process.pid, signal.SIGINT)

    @contextlib.contextmanager
    def sign_in(self, name: str) -> Iterator[httpx.Client]:
        """An HTTP client with a session."""
        with httpx.Client(base_url=self.url, trust_env=False, follow_redirects=True, timeout=10) as client:
            form = {"name": name, "password": DEMO_PASSWORDS[name]}
            assert client.post("/signin", data=form).url.path == "/live/"
            yield client

    def stream(self, channels: str, client: httpx.Client | None = None) -> Stream:
        """An open stream; with the cookies of a client."""
        cookies = "; ".join(f"{name}={value}" for name, value in client.cookies.items()) if client else ""
        return Stream(f"{self.url}/stream?channels={channels}", headers={"Cookie": cookies})

    def may_listen(self, channels: str, client: httpx.Client | None = None) -> bool:
        """Whether a stream is granted."""
        with self.stream(channels, client) as stream:
            assert stream.status in (200, 403)
            return stream.status == 200


@pytest.fixture
def demo(log: Path) -> Iterator[Callable[..., Demo]]:
    """Runs what `make demo` runs, on a free port and with an embedded Valkey of its own."""
    started = []
    # Short, since the path of a Unix socket must have less than 108 characters.
    with tempfile.TemporaryDirectory(prefix="demo") as folder:

        def start(**env: str) -> Demo:
            port = free_port()
            without = {key: value for key, value in os.environ.items() if not key.endswith("REDIS_URL")}
            environ = {**without, "TMPDIR": folder, "PORT": str(port), "WEB_CONCURRENCY": "2", **env}
            command = [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "example_app:create_app()"]
            with log.open("wb") as output:
                process = subprocess.Popen(
                    command, cwd=ROOT, env=environ, stdout=output, stderr=output, start_new_session=True
                )
            demo = Demo(process, f"http://127.0.0.1:{port}", log)
            started.append(demo)
            eventually(lambda: "Open http" in log.read_text() or process.poll() is not None, 20)
            eventually(lambda: log.read_text().count("Booting worker") == 2, 20)
            return demo

        yield start
        for demo in started:
            for pid in demo.members():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            demo.process.wait(10)


def test_it_says_where_to_look_and_events_move(demo: Callable[..., Demo]) -> None:
    running = demo()
    (line,) = re.findall("Open .*", running.log.read_text())
    assert line == f"Open {running.url} in a browser. Ctrl-C ends the demo."
    assert httpx.get(running.url, trust_env=False, follow_redirects=True).url.path == "/signin"
    with running.stream("news,ticks") as stream:
        assert stream.next().type == "sse.open"
        first, second = stream.next_of("tick").json(), stream.next_of("tick").json()
        assert second["number"] == first["number"] + 1


def test_what_the_form_sends_arrives_and_other_channels_are_closed(demo: Callable[..., Demo]) -> None:
    running = demo()
    assert not running.may_listen("chat")
    with running.sign_in("ada") as ada, running.sign_in("grace") as grace:
        assert running.may_listen("news,chat,user:ada", ada)
        assert not running.may_listen("user:grace", ada)
        assert not running.may_listen("unheard-of", ada)
        with running.stream("chat,user:grace", grace) as stream:
            assert stream.next().type == "sse.open"
            for channel in ("chat", "user:grace"):
                sent = ada.post("/live/publish", json={"channel": channel, "text": " hello "})
                received = stream.next()
                assert received.id == sent.json()["cursor"]
                assert received.type == {"chat": "chat", "user:grace": "private"}[channel]
                assert (received.json()["from"], received.json()["text"]) == ("Ada", "hello")


def test_only_its_own_pages_may_publish(demo: Callable[..., Demo]) -> None:
    running = demo()
    event = {"channel": "news", "text": "hello"}
    with running.sign_in("ada") as ada:
        assert ada.post("/live/publish", json=event).status_code == 200
        assert ada.post("/live/publish", data=event).status_code == 415
        assert ada.post("/live/publish", json=event, headers={"Origin": running.url}).status_code == 200
        for elsewhere in ("https://example.org", "null"):
            assert ada.post("/live/publish", json=event, headers={"Origin": elsewhere}).status_code == 403
        cross = {"Sec-Fetch-Site": "cross-site"}
        assert ada.post("/live/publish", json=event, headers=cross).status_code == 403
        assert ada.post("/signout", headers=cross).status_code == 403
        wrong: list[tuple[int, object]] = [
            (403, {"channel": "ticks", "text": "x"}),
            (403, {"channel": ["news"], "text": "x"}),
            (400, {"channel": "news", "text": " "}),
            (400, {"channel": "news", "text": 1}),
            (400, {"channel": "news", "text": "x" * 10_001}),
            (400, [event]),
        ]
        for status, body in wrong:
            answer = ada.post("/live/publish", json=body)
            assert (answer.status_code, bool(answer.json()["error"])) == (status, True)
        policy = ada.get("/live/").headers["Content-Security-Policy"]
        assert "unsafe" not in policy
        assert "default-src 'none'" in policy
    with httpx.Client(base_url=running.url, trust_env=False) as nobody:
        assert nobody.post("/live/publish", json=event).status_code in (302, 401)


def test_ctrl_c_ends_everything_within_three_seconds(demo: Callable[..., Demo]) -> None:
    running = demo()
    streams = [running.stream("news") for _ in range(20)]
    assert [stream.next().type for stream in streams] == ["sse.open"] * 20
    assert running.running("example_app.ticker")
    assert running.running("valkey-server")
    began = time.monotonic()
    running.press_ctrl_c()
    assert [list(stream)[-1].type for stream in streams] == ["sse.close"] * 20
    assert all(stream.complete for stream in streams)
    for stream in streams:
        stream.close()
    eventually(lambda: running.process.poll() is not None and not running.members(), 20)
    took = time.monotonic() - began
    print(f"Ctrl-C: all were gone after {took:.2f} s")
    assert running.process.returncode == 0
    assert took < LONGEST_END
    assert not re.search("Traceback|[Ee]rror|not published", running.log.read_text())


def test_a_reload_keeps_broker_ticker_and_sessions(demo: Callable[..., Demo]) -> None:
    running = demo()
    before = running.running("valkey-server") + running.running("example_app.ticker")
    workers = set(running.running("example_app:create_app()"))
    with running.sign_in("ada") as ada, running.stream("ticks") as stream:
        stream.next_of("tick")
        os.kill(running.process.pid, signal.SIGHUP)
        assert list(stream)[-1].type == "sse.close"
        eventually(lambda: workers & set(running.members()) == {running.process.pid})
        with running.stream("ticks,chat", ada) as again:
            assert again.next_of("tick").json()["number"] > 1
    assert running.running("valkey-server") + running.running("example_app.ticker") == before
    assert "Traceback" not in running.log.read_text()


def test_the_ticker_and_the_workers_end_when_the_master_is_killed(demo: Callable[..., Demo]) -> None:
    running = demo()
    os.kill(running.process.pid, signal.SIGKILL)
    running.process.wait(10)
    eventually(lambda: len(running.members()) == len(running.running("valkey-server")), 10)


def test_it_takes_the_broker_that_the_environment_names(demo: Callable[..., Demo], empty_valkey: str) -> None:
    running = demo(REDIS_URL=empty_valkey)
    with running.stream("ticks") as stream:
        stream.next_of("tick")
    assert running.running("example_app.ticker")
    assert not running.running("valkey-server")
