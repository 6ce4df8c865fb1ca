"""Pages in Chromium and in Firefox behind one interface, for tests that do the same in both browsers."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from playwright import sync_api as playwright

from tests.support.processes import ROOT, need


class Page(Protocol):
    """A page in a browser."""

    def goto(self, url: str) -> Any:
        """Loads an address. Does not wait for the libraries of the page."""

    def evaluate(self, expression: str) -> Any:
        """Returns the value of a JavaScript expression."""


class Firefox:
    """A real Firefox, which a process of Node drives.

    :param script: runs in each page before the page's own scripts.
    """

    def __init__(self, script: str) -> None:
        command = [need("node"), "remote.mjs", need("firefox-esr"), script]
        self._process = subprocess.Popen(
            command, cwd=ROOT / "tests" / "js", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.version = self._answer()

    def call(self, **command: str) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer.get("value")  # missing if it is undefined

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


class FirefoxPage:
    """One tab of Firefox."""

    def __init__(self, firefox: Firefox, name: str) -> None:
        self._firefox, self._name = firefox, name
        firefox.call(open=name)

    def goto(self, url: str) -> Any:
        return self._firefox.call(goto=url, page=self._name)

    def evaluate(self, expression: str) -> Any:
        return self._firefox.call(evaluate=expression, page=self._name)


class ChromiumPage:
    """One tab of Chromium."""

    def __init__(self, page: playwright.Page) -> None:
        self._page = page

    def goto(self, url: str) -> Any:
        return self._page.goto(url, wait_until="commit")

    def evaluate(self, expression: str) -> Any:
        return self._page.evaluate(expression)


Open = Callable[[str], Page]


@contextlib.contextmanager
def chromium(browser: playwright.Browser, script: str) -> Iterator[Open]:
    """Has a window of a Chromium until the block ends. Yields a function that opens a page.

    :param script: runs in each page before the page's own scripts.
    """
    context = browser.new_context()
    context.add_init_script(script)
    try:
        yield lambda name: ChromiumPage(context.new_page())
    finally:
        context.close()


@contextlib.contextmanager
def firefox(script: str) -> Iterator[Open]:
    """Runs a Firefox, for what `chromium` does in Chromium."""
    running = Firefox(script)
    try:
        yield lambda name: FirefoxPage(running, name)
    finally:
        running.close()


@contextlib.contextmanager
def run_chromium() -> Iterator[playwright.Browser]:
    """Runs a Chromium until the block ends. Tests use the fixture `chromium` instead."""
    path = shutil.which("chromium-headless-shell") or need("chromium")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            browser.close()


BROWSERS = ("Chromium", "Firefox")
