"""`make demo`: gunicorn with the project's gunicorn.conf.py, the example app and its ticker."""

from __future__ import annotations

import contextlib
import html
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from example_app.signin import DEMO_PASSWORDS
from tests.support.deadline import eventually, stretched
from tests.support.processes import ENDED, ROOT, free_port
from tests.support.stream import Stream

#: Seconds that everything may take to end after Ctrl-C.
END_LIMIT = 3.0


@dataclass
class Demo:
    """The processes of a demo: gunicorn's process group, the ticker, and the Valkey with its keeper."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path
    folder: str  # of the Valkey's data and socket

    def members(self) -> dict[int, str]:
        """The command lines of all running processes, by pid."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                state, _, group = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:  # the process has ended meanwhile
                continue
            ours = int(group) == self.process.pid or f"--parent {self.process.pid} " in line
            if (ours or self.folder in line) and state != "Z":
                found[int(folder.name)] = line
        return found

    def running(self, part: str) -> list[int]:
        """Pids of the processes whose command line contains `part`."""
        return [pid for pid, line in self.members().items() if part in line]

    def ready_workers(self) -> int:
        """How many workers have run the last hook of gunicorn.conf.py. From then on they ignore SIGINT, and
        leave Ctrl-C to the master."""
        ignored = []
        for pid in {*self.running("example_app:create_app()")} - {self.process.pid}:
            with contextlib.suppress(*ENDED):
                status = Path(f"/proc/{pid}/status").read_text()
                ignored += [int(mask, 16) for mask in re.findall(r"SigIgn:\s*(\w+)", status)]
        return sum(bool(mask >> (signal.SIGINT - 1) & 1) for mask in ignored)

    def press_ctrl_c(self) -> None:
        """Sends SIGINT to the whole group, as a terminal does."""
        os.killpg(self.process.pid, signal.SIGINT)

    @contextlib.contextmanager
    def sign_in(self, name: str) -> Iterator[httpx.Client]:
        """An HTTP client that has signed in as `name`."""
        with httpx.Client(
            base_url=self.url,
            headers={"Connection": "close"},  # a stopping worker waits for idle connections
            follow_redirects=True,
            timeout=10,
            trust_env=False,
        ) as client:
            form = {"name": name, "password": DEMO_PASSWORDS[name]}
            assert client.post("/signin", data=form).url.path == "/start/"
            yield client

    def stream(self, channels: str, client: httpx.Client | None = None) -> Stream:
        """Opens a stream; with the cookies of `client`, if given."""
        cookies = "; ".join(f"{name}={value}" for name, value in client.cookies.items()) if client else ""
        return Stream(f"{self.url}/stream?channels={channels}", headers={"Cookie": cookies})

    def may_listen(self, channels: str, client: httpx.Client | None = None) -> bool:
        """Whether the app allows a stream with these channels."""
        with self.stream(channels, client) as stream:
            assert stream.status in (200, 401, 403)
            return stream.status == 200


@contextlib.contextmanager
def running_demo(log: Path, **env: str) -> Iterator[Demo]:
    """Runs the command of `make demo` on a free port, with its own embedded Valkey."""
    with tempfile.TemporaryDirectory(prefix="demo") as folder:
        port = free_port()
        without = {key: value for key, value in os.environ.items() if not key.endswith("REDIS_URL")}
        environ = {
            **without,
            "TMPDIR": folder,
            "XDG_STATE_HOME": folder,
            "PORT": str(port),
            "WEB_CONCURRENCY": "2",
        }
        # Without a name, all demos of this clone would have the same Valkey.
        environ = {**environ, "SSE_PUSH_BROKER_URL": "embedded://demo", **env}
        command = [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "example_app:create_app()"]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environ, stdout=output, stderr=output, start_new_session=True
            )
        demo = Demo(process, f"http://127.0.0.1:{port}", log, folder)
        try:
            eventually(lambda: demo.ready_workers() == 2 or process.poll() is not None, 30)
            assert process.poll() is None, log.read_text()
            yield demo
        finally:
            for pid in demo.members():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait(60)


@pytest.fixture(scope="module")
def shared_demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """One demo for all tests that leave it running."""
    folder = tmp_path_factory.mktemp("demo")
    traced = {"SSE_PUSH_TRACE": "1", "EXAMPLE_SPANS": str(folder / "spans.jsonl")}
    with running_demo(folder / "server.log", **traced) as demo:
        with demo.stream("ticks") as stream:  # the first tick follows the events that the demo begins with
            stream.next_of("tick")
        yield demo


@pytest.fixture
def demo(log: Path) -> Iterator[Demo]:
    """A demo for one test."""
    with running_demo(log) as demo:
        yield demo


def test_the_demo_prints_its_address_and_ticks_come(shared_demo: Demo) -> None:
    (line,) = re.findall("Open .*", shared_demo.log.read_text())
    assert line == f"Open {shared_demo.url} in a browser. Ctrl-C ends the demo."
    assert (
        httpx.get(shared_demo.url, trust_env=False, follow_redirects=True, timeout=60).url.path == "/start/"
    )
    with shared_demo.stream("news,ticks") as stream:
        assert stream.next().type == "sse.open"
        first, second = stream.next_of("tick").json(), stream.next_of("tick").json()
        assert second["number"] == first["number"] + 1


def test_messages_of_the_form_arrive_and_other_channels_are_refused(shared_demo: Demo) -> None:
    assert not shared_demo.may_listen("chat")
    with shared_demo.sign_in("ada") as ada, shared_demo.sign_in("grace") as grace:
        assert shared_demo.may_listen("news,chat,user:ada", ada)
        assert not shared_demo.may_listen("user:grace", ada)
        assert not shared_demo.may_listen("unheard-of", ada)
        with shared_demo.stream("chat,user:grace", grace) as stream:
            assert stream.next().type == "sse.open"
            for channel in ("chat", "user:grace"):
                sent = ada.post("/live/publish", json={"channel": channel, "text": " hello "})
                received = stream.next()
                assert received.id == sent.json()["cursor"]
                assert received.type == {"chat": "chat", "user:grace": "private"}[channel]
                assert (received.json()["from"], received.json()["text"]) == ("Ada", "hello")


def test_a_message_and_its_way_are_one_trace(shared_demo: Demo) -> None:
    file = shared_demo.log.with_name("spans.jsonl")
    with shared_demo.sign_in("ada") as ada, shared_demo.stream("chat", ada) as stream:
        stream.next_of("sse.open")
        ada.post("/live/publish", json={"channel": "chat", "text": "traced"})
        assert stream.next_of("chat").json()["text"] == "traced"

    def names() -> set[str]:
        """The names of the spans in the trace of the last message."""
        spans = [json.loads(line) for line in file.read_text().splitlines()]
        views = [span["context"]["trace_id"] for span in spans if span["name"] == "POST live.publish"]
        return {span["name"] for span in spans if span["context"]["trace_id"] == views[-1]}

    wanted = {"POST live.publish", "sse publish", "sse deliver"}
    eventually(lambda: names() == wanted)


def test_a_token_of_the_demos_identity_provider_opens_a_stream(shared_demo: Demo) -> None:
    with httpx.Client(base_url=shared_demo.url, trust_env=False, timeout=60) as http:
        form = {"name": "ada", "password": "wrong"}
        assert http.post("/issuer/token", data=form).status_code == 401
        token = http.post("/issuer/token", data={**form, "password": DEMO_PASSWORDS["ada"]}).text
        for _ in range(4):  # each of the two workers fetches the keys, perhaps from itself
            headers = {"Authorization": f"Bearer {token}"}
            with Stream(f"{shared_demo.url}/stream?channels=chat,user:ada", headers=headers) as stream:
                assert stream.next().json()["channels"] == ["chat", "user:ada"]
        keys = http.get("/issuer/keys").json()["keys"]
        assert len({key["kid"] for key in keys}) == 3
        assert not any("d" in key for key in keys)


def test_only_its_own_pages_may_publish(shared_demo: Demo) -> None:
    event = {"channel": "news", "text": "hello"}
    with shared_demo.sign_in("ada") as ada:
        assert ada.post("/live/publish", json=event).status_code == 200
        assert ada.post("/live/publish", data=event).status_code == 415
        assert ada.post("/live/publish", json=event, headers={"Origin": shared_demo.url}).status_code == 200
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
    with httpx.Client(base_url=shared_demo.url, trust_env=False, timeout=60) as nobody:
        assert nobody.post("/live/publish", json=event).status_code in (302, 401)


def test_ctrl_c_ends_everything_within_three_seconds(demo: Demo) -> None:
    streams = [demo.stream("news") for _ in range(20)]
    assert [stream.next().type for stream in streams] == ["sse.open"] * 20
    assert demo.running("example_app.ticker")
    assert demo.running("valkey-server")
    began = time.monotonic()
    demo.press_ctrl_c()
    assert [list(stream)[-1].type for stream in streams] == ["sse.close"] * 20
    assert all(stream.complete for stream in streams)
    for stream in streams:
        stream.close()
    eventually(lambda: demo.process.poll() is not None and not demo.members(), 20)
    took = time.monotonic() - began
    print(f"Ctrl-C: all processes were gone after {took:.2f} s")
    assert demo.process.returncode == 0
    assert took < stretched(END_LIMIT)
    assert not re.search("Traceback|[Ee]rror|not published", demo.log.read_text())


def test_a_reload_keeps_broker_ticker_and_sessions(demo: Demo) -> None:
    before = demo.running("valkey-server") + demo.running("example_app.ticker")
    workers = set(demo.running("example_app:create_app()"))
    with demo.sign_in("ada") as ada, demo.stream("ticks") as stream:
        stream.next_of("tick")
        os.kill(demo.process.pid, signal.SIGHUP)
        assert list(stream)[-1].type == "sse.close"
        eventually(lambda: workers & set(demo.members()) == {demo.process.pid})
        with demo.stream("ticks,chat", ada) as again:
            assert again.next_of("tick").json()["number"] > 1
    assert demo.running("valkey-server") + demo.running("example_app.ticker") == before
    assert "Traceback" not in demo.log.read_text()


def test_with_an_external_broker_no_process_outlives_a_killed_master(log: Path, empty_valkey: str) -> None:
    with running_demo(log, SSE_PUSH_BROKER_URL=empty_valkey) as demo:
        with demo.stream("ticks") as stream:
            stream.next_of("tick")
        assert demo.running("example_app.ticker")
        assert not demo.running("valkey-server")
        os.kill(demo.process.pid, signal.SIGKILL)
        demo.process.wait(60)
        eventually(lambda: not demo.members(), 10)


def test_the_command_on_the_page_works_as_it_is_printed(shared_demo: Demo, tmp_path: Path) -> None:
    page = httpx.get(f"{shared_demo.url}/live/", trust_env=False, timeout=60).text
    command = html.unescape(re.findall(r'<code id="command">(.*?)</code>', page)[0])
    assert "sse publish news" in command
    folders = dict.fromkeys(("HOME", "TMPDIR", "XDG_STATE_HOME"), shared_demo.folder)
    terminal = {"PATH": os.environ["PATH"], **folders}
    with shared_demo.stream("news") as stream:
        assert stream.next().type == "sse.open"
        result = subprocess.run(
            command, shell=True, cwd=tmp_path, env=terminal, capture_output=True, timeout=60
        )
        assert result.returncode == 0, result.stderr
        assert stream.next().json() == {"text": "Hello from the terminal"}
