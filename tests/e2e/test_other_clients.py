"""The examples of docs/other-clients.md run with the real clients, also through a restart of the server."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread

import pytest

from flask_sse_push import MessageAnnouncer
from tests.support.processes import ROOT, Gunicorn, free_port, gunicorn, need

PAGE = (ROOT / "docs" / "other-clients.md").read_text("utf-8")
JS = ROOT / "tests" / "js"
ADDRESS = "http://localhost:8000"
#: What the page's global objects are in a browser, for fetch-event-source.
AS_IN_A_BROWSER = """
globalThis.window = globalThis;
globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} };
"""


def example(title: str) -> str:
    """Returns the first block of code below a title of the page."""
    (found,) = re.findall(rf"^## {title}\n(?:(?!^## ).)*?^```\w+\n(.+?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


class Program:
    """A client that runs as a process, and the lines that it has written."""

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        self.process = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._lines: SimpleQueue[str] = SimpleQueue()
        self.seen: list[str] = []
        self._thread = Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for line in output:
                self._lines.put(line.rstrip())  # JSON data ends with a tab

    def close(self) -> None:
        self.process.kill()
        self.process.wait(60)
        self._thread.join(60)

    def wait_for(self, line: str, retry: Callable[[], object] = lambda: None) -> None:
        """Reads lines until one of them is `line`. Calls `retry` after each second without a line."""
        for _ in range(60):
            try:
                while line not in self.seen:
                    self.seen.append(self._lines.get(timeout=1))
                return
            except Empty:
                retry()
        pytest.fail(f"{line!r} did not arrive after {self.seen}")


@contextmanager
def running(command: Sequence[str], folder: Path) -> Iterator[Program]:
    program = Program(command, folder)
    try:
        yield program
    finally:
        program.close()


class Site:
    """The plain app, which can restart at the same address, and an announcer."""

    def __init__(self, stack: ExitStack, broker_url: str, log: Path) -> None:
        self._stack, self._log = stack, log
        self._env = {"SSE_PUSH_BROKER_URL": broker_url, "SSE_PUSH_HEARTBEAT": "1", "SSE_PUSH_RETRY": "0.2"}
        self.port = free_port()
        self.announcer = MessageAnnouncer.from_url(broker_url)
        stack.callback(self.announcer.close)
        self.start()

    def start(self) -> None:
        self._server = ExitStack()
        self.gunicorn: Gunicorn = self._server.enter_context(
            gunicorn("tests.apps.plain:app", env=self._env, log=self._log, port=self.port)
        )
        self._stack.push(self._server)

    def stop(self) -> None:
        """Stops the server as a deployment does. It drains its streams."""
        self._server.close()

    def at(self, code: str) -> str:
        """Returns the code of an example with the address of this site."""
        assert ADDRESS in code
        return code.replace(ADDRESS, self.gunicorn.url)


@pytest.fixture
def site(empty_valkey: str, log: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        yield Site(stack, empty_valkey, log)


def javascript(code: str) -> list[str]:
    """Returns the command that runs a module in Node, with the packages of the tests."""
    return [need("node"), "--input-type=module", "-e", code]


def command_of(title: str, site: Site) -> list[str]:
    code = site.at(example(title))
    if title == "curl":
        return shlex.split(code)
    if title.startswith("Python"):
        return [sys.executable, "-u", "-c", code]
    return javascript(AS_IN_A_BROWSER + code if title.startswith("fetch") else code)


#: The titles of the examples, and whether the client comes back when the server has ended the stream.
CLIENTS = {
    "curl": False,
    "Python: httpx-sse": True,
    "Python: requests and sseclient-py": False,
    "Node: eventsource": True,
    "fetch-event-source": True,
}


@pytest.mark.parametrize("title", CLIENTS)
def test_an_example_shows_the_events_of_the_app_and_nothing_else(site: Site, title: str) -> None:
    prefix = (
        {"message": "data: ", "price": "data: "}
        if title == "curl"
        else {"message": "message ", "price": "price "}
    )
    with running(command_of(title, site), JS) as program:
        # The client may not be connected yet, so the first event is published until it arrives.
        program.wait_for(f"{prefix['message']}ready", lambda: site.announcer.publish("ready", channel="news"))
        site.announcer.publish("hello", channel="news")
        program.wait_for(f"{prefix['message']}hello")
        if CLIENTS[title]:
            site.stop()
            site.announcer.publish("missed", channel="news")
            site.start()
            program.wait_for(f"{prefix['message']}missed")
        site.announcer.publish({"eur": 5}, "price", channel="news")
        program.wait_for(f'{prefix["price"]}{{"eur": 5}}')
        said = [line for line in program.seen if not line.startswith("lost the connection")]
        if title == "curl":
            assert not [line for line in said if "sse." in line]
        else:
            expected = [f"{prefix['message']}hello", *[f"{prefix['message']}missed"] * CLIENTS[title]]
            first = said.count(f"{prefix['message']}ready")
            assert said[first:] == [*expected, f'{prefix["price"]}{{"eur": 5}}']


def test_fetch_event_source_does_not_come_back_after_a_proper_end_unless_told(site: Site) -> None:
    code = """
    import { fetchEventSource } from "@microsoft/fetch-event-source";
    await fetchEventSource("http://localhost:8000/stream?channels=news&events=plain", {
      onmessage: ({ data }) => console.log(data),
    });
    console.log("has returned");
    process.exit(0);
    """
    with running(javascript(AS_IN_A_BROWSER + site.at(code)), JS) as program:
        program.wait_for("ready", lambda: site.announcer.publish("ready", channel="news"))
        site.stop()
        program.wait_for("has returned")


def test_without_plain_a_client_with_one_handler_shows_the_servers_events(site: Site) -> None:
    code = site.at(example("Python: requests and sseclient-py")).replace("&events=plain", "")
    code = code.replace('if not event.event.startswith("sse."):', "if True:")
    with running([sys.executable, "-u", "-c", code], JS) as program:
        program.wait_for("sse.heartbeat {}")
        assert program.seen[0].startswith("sse.open ")
