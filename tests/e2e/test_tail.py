"""`flask sse tail` with a real server: lost connections, refusals and closes, in a pipe and in a terminal."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from flask_sse_push import MessageAnnouncer
from flask_sse_push.cli.tail import url as by_url
from flask_sse_push.cli.tail.news import Ended, News, Opened, Received
from tests.support.deadline import eventually
from tests.support.flask_process import FlaskProcess
from tests.support.processes import ROOT, Gunicorn, free_port, gunicorn
from tests.support.proxy import Proxy

from .conftest import Serve


class Tail(FlaskProcess):
    """A running `flask sse tail`."""

    def __init__(self, *options: str, broker: str = "memory://", **env: str) -> None:
        env = {"SSE_PUSH_BROKER_URL": broker, "NO_PROXY": "*", **env}
        super().__init__("--app", "tests.apps.plain", "sse", "tail", *options, env=env)

    def __enter__(self) -> Tail:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.send_signal(signal.SIGKILL)
        self.ended()

    def ended(self) -> int:
        """Waits until the command ends; returns its exit code."""
        return self.wait(60)

    def wait_for_remark(self, text: str) -> str:
        """Waits for a remark that contains `text`, and returns it."""
        return eventually(lambda: next((remark for remark in self.remarks if text in remark), ""), 60)

    @property
    def data(self) -> list[str]:
        return [json.loads(line)["data"] for line in self.lines]


@pytest.fixture(scope="module")
def server(valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gunicorn]:
    """A server for most tests of this file. Each test has its own channel; nobody may listen to `secret`."""
    env = {
        "SSE_PUSH_BROKER_URL": valkey_url,
        "SSE_PUSH_RETRY": "0.1",
        "SSE_PUSH_PUBLIC_CHANNELS": "cut,chosen,timed,drawn",
    }
    log = tmp_path_factory.mktemp("server") / "server.log"
    with gunicorn("tests.apps.plain:app", env=env, log=log) as running:
        yield running


@pytest.fixture
def announcer(valkey_url: str) -> Iterator[MessageAnnouncer]:
    announcer = MessageAnnouncer.from_url(valkey_url, SSE_PUSH_PUBLISH_TIMEOUT=20)
    yield announcer
    announcer.close()


def test_a_lost_connection_is_reported_and_no_event_is_lost(
    server: Gunicorn, announcer: MessageAnnouncer
) -> None:
    with Proxy(server.port) as proxy:
        url = f"http://127.0.0.1:{proxy.port}/stream?channels=cut"
        with Tail(url, "--json", "--count", "4") as tail:
            tail.wait_for_remark("open: cut")
            cursors = [
                announcer.publish({"n": 0}, "tick", channel="cut"),
                announcer.publish("1", channel="cut"),
            ]
            eventually(lambda: len(tail.lines) == 2, 60)
            proxy.requests.freeze()
            assert proxy.cut() == 1
            tail.wait_for_remark("lost: ")
            cursors += [announcer.publish(str(n), channel="cut") for n in (2, 3)]
            proxy.requests.thaw()
            assert tail.ended() == 0
            assert "resumed, nothing missed" in tail.wait_for_remark("open again after")
            assert "4 events" in tail.wait_for_remark("1 reconnects, 0 resets")
            events = [json.loads(line) for line in tail.lines]
            assert [event["id"] for event in events] == cursors
            assert events[0]["type"] == "tick"
            assert tail.data == ['{"n": 0}', "1", "2", "3"]


def test_a_stream_that_is_silent_for_too_long_is_closed_and_resumed(
    serve: Serve, announcer: MessageAnnouncer
) -> None:
    server = serve(heartbeat=0.5, retry=0.1)
    with Proxy(server.port) as proxy:
        url = f"http://127.0.0.1:{proxy.port}/stream?channels=silent"
        with Tail(url, "--json", "--count", "1", "--all") as tail:
            eventually(lambda: any("sse.heartbeat" in line for line in tail.lines), 60)
            proxy.replies.freeze()
            tail.wait_for_remark("lost: nothing has arrived for")
            announcer.publish("after", channel="silent")
            proxy.replies.thaw()
            assert tail.ended() == 0
            tail.wait_for_remark("open again after")
            assert tail.data[-1] == "after"


def test_since_and_last_choose_the_first_event_and_a_final_close_ends_it(
    server: Gunicorn, announcer: MessageAnnouncer
) -> None:
    first, *_ = [announcer.publish(str(n), channel="chosen") for n in range(4)]
    url = f"{server.url}/stream?channels=chosen"
    with (
        Tail(url, "--json", "--since", first, "--count", "3") as since,
        Tail(url, "--json", "--last", "2") as last,
    ):
        assert since.ended() == 0
        assert since.data == ["1", "2", "3"]
        last.wait_for_remark("open: chosen")
        eventually(lambda: last.data == ["2", "3"], 60)
        announcer.disconnect(channel="chosen", reconnect=False)
        assert last.ended() == 1
        last.wait_for_remark("asks the client not to come back")


def test_it_ends_after_the_timeout_and_fails_if_count_was_not_reached(server: Gunicorn) -> None:
    url = f"{server.url}/stream?channels=timed"
    with Tail(url, "--timeout", "0.5") as enough, Tail(url, "--timeout", "0.5", "--count", "1") as too_few:
        assert (enough.ended(), too_few.ended()) == (0, 1)
        assert enough.lines == too_few.lines == []


def test_it_ends_with_the_reason_when_the_server_refuses(server: Gunicorn) -> None:
    with Tail(f"{server.url}/stream?channels=secret") as forbidden, Tail(f"{server.url}/") as page:
        assert (forbidden.ended(), page.ended()) == (1, 1)
        assert "refused: 403 FORBIDDEN: 1201" in forbidden.wait_for_remark("1201")
        page.wait_for_remark("text/event-stream")
    with Tail(f"http://127.0.0.1:{free_port()}/stream") as nobody, Tail("ftp://127.0.0.1/") as odd:
        assert (nobody.ended(), odd.ended()) == (1, 1)
        nobody.wait_for_remark("cannot open: ")
        odd.wait_for_remark("protocol")


class ForeignServer(BaseHTTPRequestHandler):
    """Another kind of SSE server: it sends comments as heartbeats, and closes each stream after one event."""

    requests: list[dict[str, str]]

    def do_GET(self) -> None:
        self.requests.append({name.lower(): value for name, value in self.headers.items()})
        number = len(self.requests)
        if number == 2:
            self.send_response(503)
            self.send_header("Retry-After", "0")
            self.end_headers()
            return
        self.send_response(200 if number < 4 else 204)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        body = f"retry: 10\n\n: keep\n\nid: {number}\ndata: {number}\ndata: ü\n\n: keep\n\n"
        self.wfile.write(body.encode() if number < 4 else b"")

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def foreign_server() -> Iterator[tuple[str, list[dict[str, str]]]]:
    requests: list[dict[str, str]] = []
    handler = type("Handler", (ForeignServer,), {"requests": requests})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/?ticket=secret", requests
        server.shutdown()
        thread.join(10)


def test_any_event_stream_can_be_followed_with_headers_and_a_token() -> None:
    with (
        foreign_server() as (url, requests),
        Tail(url, "--json", "--header", "X-Me: you", SSE_TOKEN="t0k") as tail,
    ):
        assert tail.ended() == 1  # 204: the server asks clients not to reconnect
        tail.wait_for_remark("204")
        assert tail.data == ["1\nü", "3\nü"]
        assert [request.get("last-event-id") for request in requests] == [None, "1", "1", "3"]
        assert {(request["authorization"], request["x-me"]) for request in requests} == {
            ("Bearer t0k", "you")
        }
        remarks = "".join(tail.remarks)
        assert not any(secret in remarks for secret in ("t0k", "secret"))


class SlowServer(BaseHTTPRequestHandler):
    """Never answers at /dumb. At other paths, the stream pauses for longer than an answer may take."""

    finished: threading.Event

    def do_GET(self) -> None:
        if self.path == "/dumb":
            self.finished.wait(60)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.wfile.write(b"data: first\n\n")
        time.sleep(3.0)
        self.wfile.write(b"data: second\n\n")
        self.finished.wait(60)

    def log_message(self, *args: object) -> None:
        pass


def test_an_answer_must_come_in_time_but_a_stream_may_be_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_url, "CONNECT_TIMEOUT", 2.0)
    finished = threading.Event()
    with ThreadingHTTPServer(
        ("127.0.0.1", 0), type("Handler", (SlowServer,), {"finished": finished})
    ) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        dumb: list[News] = []
        silent: list[News] = []
        sources = [
            by_url.URLSource(f"http://127.0.0.1:{server.server_port}{path}", {}, "", news.append)
            for path, news in (("/dumb", dumb), ("/silent", silent))
        ]
        reading = threading.Thread(target=sources[1].run, daemon=True)
        reading.start()
        sources[0].run()
        assert isinstance(dumb[0], Ended)
        assert dumb[0].why.startswith("cannot open: ReadTimeout")
        eventually(lambda: len(silent) == 3, 30)
        assert [item for item in silent if not isinstance(item, Opened)] == [
            Received("message", "first"),
            Received("message", "second"),
        ]
        sources[1].close()
        finished.set()
        reading.join(10)
        server.shutdown()
        thread.join(10)


def test_channels_are_followed_at_the_broker_and_resumed_after_a_lost_link(
    valkey_url: str, announcer: MessageAnnouncer
) -> None:
    announcer.publish("old", channel="left")
    with Proxy(urlsplit(valkey_url).port or 0) as proxy:
        broker = f"redis://127.0.0.1:{proxy.port}/0"
        options = ["--channel", "left", "--channel", "right", "--since", "earliest", "--json", "--count", "5"]
        with Tail(*options, broker=broker, SSE_PUSH_PROBE="0.2") as tail:
            tail.wait_for_remark("open: left, right")
            announcer.publish("new", channel="right")
            eventually(lambda: len(tail.lines) == 2, 60)
            proxy.requests.freeze()
            proxy.cut()
            tail.wait_for_remark("lost: ")
            announcer.publish("both", channel=("left", "right"))
            announcer.publish("while it was away", "note", channel="left")
            proxy.requests.thaw()
            tail.wait_for_remark("open again after")
            announcer.publish("after", channel="right")
            assert tail.ended() == 0
            assert tail.data == ["old", "new", "both", "while it was away", "after"]
            channels = [json.loads(line)["channel"] for line in tail.lines]
            assert channels == ["left", "right", "left", "left", "right"]


def test_events_that_the_broker_no_longer_has_are_reported_as_lost(
    valkey_url: str, announcer: MessageAnnouncer
) -> None:
    cursor = announcer.publish("first", channel="gone")
    options = ["--channel", "gone", "--json", "--count", "1"]
    with Tail(*options, "--since", f"other-{cursor.partition('-')[2]}", broker=valkey_url) as tail:
        assert tail.ended() == 0
        tail.wait_for_remark("events were lost for good: ")
        assert tail.data == ["first"]


def test_the_error_says_what_is_wrong_with_a_call(valkey_url: str) -> None:
    calls: tuple[tuple[list[str], str, str], ...] = (
        ([], "give either a URL or --channel NAME", valkey_url),
        (["http://x", "--channel", "a"], "give either a URL or --channel NAME", valkey_url),
        (["--channel", "bad name"], "forbidden character", valkey_url),
        (["--channel", "a"], "no other process can reach", "memory://"),
        (["--channel", "a"], "Redis", f"redis://127.0.0.1:{free_port()}"),
        (["http://x", "--header", "none"], "is not 'Name: value'", "memory://"),
    )
    running = [(Tail(*options, broker=broker), complaint) for options, complaint, broker in calls]
    for tail, complaint in running:
        with tail:
            assert tail.ended() in (1, 2)
            assert complaint in "\n".join(tail.remarks)
            assert "Traceback" not in "\n".join(tail.remarks)


def test_in_a_terminal_it_draws_a_table_and_ctrl_c_ends_it_with_a_summary(
    server: Gunicorn, announcer: MessageAnnouncer
) -> None:
    terminal, theirs = pty.openpty()
    command = [sys.executable, "-m", "flask", "--app", "tests.apps.plain", "sse", "tail"]
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "30", "NO_PROXY": "*"}
    process = subprocess.Popen(
        [*command, f"{server.url}/stream?channels=drawn"],
        cwd=ROOT, env=env, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    shown = ""

    def shows(*texts: str) -> bool:
        nonlocal shown
        while select.select([terminal], [], [], 0)[0]:
            try:
                shown += os.read(terminal, 65536).decode(errors="replace")
            except OSError:  # the other side is closed
                break
        return all(text in shown for text in texts)

    try:
        eventually(lambda: shows("state", "open", "reconnects"), 60)
        announcer.publish("hello, terminal", "greeting", channel="drawn")
        eventually(lambda: shows("greeting", "hello, terminal"), 60)
        process.send_signal(signal.SIGINT)
        # Read all output: the command cannot end while its output waits in the terminal.
        eventually(lambda: shows("1 events (15 bytes)") and process.poll() is not None, 60)
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait(10)
        os.close(terminal)
