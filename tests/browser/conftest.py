"""Starts a real Chromium and the example app under gunicorn, and collects the errors of the pages."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from example_app.signin import DEMO_PASSWORDS
from flask_sse_push import MessageAnnouncer
from tests.support.machines import network_changed_since
from tests.support.processes import ROOT, Gunicorn, gunicorn, need

#: How long after a change of the network Chromium may still drop a request, in seconds.
NETWORK_DELAY = 5.0

HERE = Path(__file__).parent

#: Flags without which Chromium would use the network. There is no sandbox, because it needs rights that
#: containers do not have.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

#: Milliseconds after which a wait on a page fails. Less than SSE_PUSH_RECHECK, so no recheck helps a test to
#: pass.
PATIENCE = 40_000
#: Seconds after which a test fails. They include the start of its servers.
TEST_TIMEOUT = 300

#: Errors that Chromium itself writes to the console when a server stops or refuses a request.
NETWORK_ERRORS = ("Failed to load resource", "net::ERR_", "EventSource's response has")

prefixes = itertools.count()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TEST_TIMEOUT))


Launch = Callable[..., contextlib.AbstractContextManager[Browser]]


@pytest.fixture(scope="session")
def launch() -> Iterator[Launch]:
    """Returns a function that runs a Chromium until a block ends. It takes playwright's options.

    Debian's chromium-headless-shell is the same browser without windows. A page in it is far less work.
    """
    path = shutil.which("chromium-headless-shell") or need("chromium")
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:

        @contextlib.contextmanager
        def start(**options: Any) -> Iterator[Browser]:
            usual: dict[str, Any] = {"executable_path": path, "args": list(FLAGS), "timeout": 2 * PATIENCE}
            browser = playwright.chromium.launch(**{**usual, **options})
            yield browser
            browser.close()

        yield start


@pytest.fixture(scope="session")
def chromium(launch: Launch) -> Iterator[Browser]:
    """Runs one browser for all tests."""
    with launch() as browser:
        yield browser


class Visitor:
    """A browser window with separate cookies. It collects the errors in its console until it is closed."""

    def __init__(self, browser: Browser, width: int = 1280, height: int = 860) -> None:
        self._context = browser.new_context(viewport={"width": width, "height": height})
        self._context.set_default_timeout(PATIENCE)
        self._errors: list[str] = []
        self._expected_errors: tuple[str, ...] = ()
        self._began = time.time()
        self.page: Page = self._context.new_page()
        self.hosts: set[str] = set()
        self.page.on("console", self._note_console)
        self.page.on("pageerror", lambda error: self._errors.append(str(error)))
        self.page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))

    def _note_console(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not message.location["url"].endswith("/favicon.ico"):
            self._errors.append(message.text)

    @property
    def problems(self) -> list[str]:
        """Returns the errors in the console so far, without the expected ones."""
        expected = self._expected_errors
        if network_changed_since(self._began - NETWORK_DELAY):
            expected += ("net::ERR_NETWORK_CHANGED",)
        return [text for text in self._errors if not any(part in text for part in expected)]

    def sign_in(self, url: str, name: str) -> Page:
        """Signs in without loading a page; returns the empty page."""
        form: dict[str, str | float | bool] = {"name": name, "password": DEMO_PASSWORDS[name]}
        answer = self._context.request.post(f"{url}/signin", form=form, max_redirects=0)
        assert answer.headers["location"] == "/"
        return self.page

    def another_tab(self) -> Page:
        """Opens a second page with the same cookies, and collects its errors too."""
        page = self._context.new_page()
        page.on("console", self._note_console)
        page.on("pageerror", lambda error: self._errors.append(str(error)))
        return page

    def texts(self) -> list[str]:
        """Returns the texts of the events that the page shows, oldest first."""
        return list(reversed(self.page.locator("#feed .text").all_text_contents()))

    def expect_network_errors(self) -> None:
        """Ignores network errors, for tests that stop the server."""
        self.expect_errors(*NETWORK_ERRORS)

    def expect_errors(self, *parts: str) -> None:
        """Ignores earlier and later errors that contain one of these texts."""
        self._expected_errors += parts

    def sign_out_silently(self) -> None:
        """Deletes the session, as if it had expired."""
        self._context.clear_cookies()

    def close(self) -> None:
        self._context.close()


def open_example(visitor: Visitor, site: Site, path: str, name: str) -> Page:
    """Signs in and opens a page of the example; returns it once its stream is open."""
    visitor.sign_in(site.url, name)
    return open_page(visitor.page, site, path)


def open_page(page: Page, site: Site, path: str) -> Page:
    """Opens a page of the example; returns it once its stream is open."""
    page.goto(f"{site.url}{path}")
    expect(page.locator("#state")).to_have_attribute("data-state", "open")
    return page


Visit = Callable[..., Visitor]


@pytest.fixture
def visit(chromium: Browser, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """Returns a function that makes visitors. After a test that passes, their consoles must have no
    errors."""
    visitors: list[Visitor] = []
    failed = request.session.testsfailed

    def make(width: int = 1280, height: int = 860) -> Visitor:
        visitors.append(Visitor(chromium, width, height))
        return visitors[-1]

    yield make
    for visitor in visitors:
        visitor.close()
    if request.session.testsfailed == failed:  # after a failure, this would hide its reason
        assert [visitor.problems for visitor in visitors] == [[] for _ in visitors]


class Site:
    """The example app on two gevent workers. It can stop, and start again at the same address."""

    def __init__(self, broker_url: str, log: Path) -> None:
        self.env = {
            "SSE_PUSH_BROKER_URL": broker_url,
            "SSE_PUSH_PREFIX": f"browser{next(prefixes)}",
            "SSE_PUSH_RETRY": "0.3",
            "SECRET_KEY": "the same for all workers and all starts in a test",
            "EXAMPLE_LOG": str(log.with_name("demo.log")),
        }
        self._log = log
        self._running = ExitStack()
        self.server: Gunicorn
        self.start()
        self.announcer = MessageAnnouncer.from_url(broker_url, SSE_PUSH_PREFIX=self.env["SSE_PUSH_PREFIX"])

    @property
    def url(self) -> str:
        return self.server.url

    def start(self) -> None:
        """Starts gunicorn. A second start uses the same port."""
        port = self.server.port if hasattr(self, "server") else None
        app = "example_app:create_app()"
        running = gunicorn(app, env=self.env, workers=2, log=self._log, port=port)
        self.server = self._running.enter_context(running)

    def stop(self) -> None:
        """Stops gunicorn, as a deployment does."""
        self._running.close()

    def run(self, *arguments: str) -> str:
        """Runs `flask --app example_app …` in another process; returns its output."""
        command = [sys.executable, "-m", "flask", "--app", "example_app", *arguments]
        result = subprocess.run(
            command, cwd=ROOT, env={**os.environ, **self.env}, capture_output=True, text=True, timeout=120
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    @contextlib.contextmanager
    def ticker(self) -> Iterator[None]:
        """Runs the ticker process until the block ends."""
        command = [sys.executable, "-m", "example_app.ticker"]
        process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **self.env})
        try:
            yield
        finally:
            process.terminate()
            assert process.wait(60) == 0

    def close(self) -> None:
        self.announcer.close()
        self.stop()


@contextlib.contextmanager
def running_site(broker_url: str, log: Path) -> Iterator[Site]:
    site = Site(broker_url, log)
    try:
        yield site
    finally:
        site.close()
    assert "Traceback" not in log.read_text()


@pytest.fixture(scope="module")
def calm_site(valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The example app on a real Valkey, shared by the tests of a module that do not damage it."""
    with running_site(valkey_url, tmp_path_factory.mktemp("calm") / "server.log") as site:
        yield site


@pytest.fixture
def site(valkey_url: str, log: Path) -> Iterator[Site]:
    """The example app for one test, which may stop it or break it."""
    with running_site(valkey_url, log) as site:
        yield site


class Counting:
    """Publishes 0, 1, 2, … to a channel while the block runs. `count` is how many it has published."""

    def __init__(self, announcer: MessageAnnouncer, channel: str, every: float = 0.02) -> None:
        self._announcer = announcer
        self._channel = channel
        self._every = every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.count = 0

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            self._announcer.publish(str(self.count), channel=self._channel)
            self.count += 1

    def __enter__(self) -> Counting:
        self._thread.start()
        return self

    def __exit__(
        self, type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def numbers(self) -> list[str]:
        """Returns all published numbers. In the end, every page must have shown them."""
        return [str(number) for number in range(self.count)]


def eventually_on(page: Page, condition: Callable[[], bool], seconds: float = PATIENCE / 1000) -> None:
    """Waits for a condition. Meanwhile, playwright continues to handle the page's events."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"the condition is not met after {seconds} seconds"
        page.wait_for_timeout(20)


def seconds_to_first_event(page: Page) -> float:
    """Returns the seconds from the end of the page's loading to its first event, measured in the page."""
    milliseconds = page.evaluate(
        "performance.getEntriesByName('first-event')[0].startTime"
        " - performance.getEntriesByType('navigation')[0].loadEventEnd"
    )
    return float(milliseconds) / 1000


def assert_prompt(page: Page, seconds: float = 1.0, times: int = 5) -> None:
    """Reloads a page of the example, and passes if the first event arrives in time.

    It tries several times, because the machine may be busy with other work.
    """
    taken = []
    for _ in range(times):
        page.reload()
        eventually_on(page, lambda: page.evaluate("performance.getEntriesByName('first-event').length") > 0)
        taken.append(seconds_to_first_event(page))
        if taken[-1] < seconds:
            return
    raise AssertionError(f"the first event arrived {taken} seconds after the page was loaded")
