"""Whether pages of htmx, Turbo and Datastar show each fragment once: `python -m tests.browser.html_figures`.

Opens the pages of docs/html.md, with the real libraries, in Chromium and in Firefox; beside them a page with
EventSource and a page with PushClient. Meanwhile fragments with the numbers 0, 1, 2, … are published. Then
each page must show each number once, and in order. There are three disturbances:

- *late*: a page gets its library a second after the server has rendered the page, so its stream opens late.
- *hidden*: the pages are hidden and shown again, 100 times. Fragments come while they are hidden and shown.
- *restarts*: the server stops and starts again, 20 times.

The output has one line for each page: how many fragments were published, lost and doubled, and how long after
the page was shown again it showed a fragment that was published while the page was hidden.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from datastar_py import ServerSentEventGenerator as datastar
from playwright import sync_api as playwright

from flask_sse_push import MessageAnnouncer, turbo
from tests.support import spans
from tests.support.deadline import eventually
from tests.support.processes import Gunicorn, gunicorn
from tests.support.servers import Server

from .pages import BROWSERS, Page, chromium, firefox, run_chromium

#: How each page gets a fragment, by the name of its library.
FRAGMENTS: dict[str, Callable[[str], Any]] = {
    "htmx2": str,
    "htmx4": str,
    "turbo": lambda html: turbo.append("orders", html),
    "datastar": lambda html: datastar.patch_elements(html, "#orders", "append"),  # type: ignore[call-overload]
    "native": str,
    "push": str,
}
#: Seconds within which a page must show what was published.
PATIENCE = 60.0

#: Runs in each page before its own scripts. Lets a test hide and show the page, and notes when the page shows
#: a number.
SCRIPT = """
let hidden = false;
Object.defineProperty(document, "hidden", { get: () => hidden });
Object.defineProperty(document, "visibilityState", { get: () => (hidden ? "hidden" : "visible") });
window.setHidden = (value) => {
  hidden = value;
  window.shownAt = performance.now();
  document.dispatchEvent(new Event("visibilitychange", { bubbles: true }));
};
window.seenAt = {};
const items = () => [...document.querySelectorAll("#orders li")];
const look = () => items().forEach((item) => (seenAt[item.textContent] ??= performance.now()));
new MutationObserver(look).observe(document, { childList: true, subtree: true });
window.numbers = () => items().map((item) => item.textContent);
"""


class Site:
    """The apps of `tests.apps.html_pages` on one worker, which can stop and start again at the same port."""

    def __init__(self, broker_url: str, folder: Path, prefix: str = "html") -> None:
        self._env = {"SSE_PUSH_BROKER_URL": broker_url, "SSE_PUSH_PREFIX": prefix, "SSE_PUSH_RETRY": "0.3"}
        self.log = folder / "server.log"
        self._running = ExitStack()
        self.server: Gunicorn
        self.start()
        self.announcers = {
            name: MessageAnnouncer.from_url(broker_url, SSE_PUSH_PREFIX=f"{prefix}{name}", SSE_PUSH_TRACE=1)
            for name in FRAGMENTS
        }
        self._published = 0

    def start(self) -> None:
        port = self.server.port if hasattr(self, "server") else None
        running = gunicorn("tests.apps.html_pages:app", env=self._env, log=self.log, port=port)
        self.server = self._running.enter_context(running)

    def stop(self) -> None:
        self._running.close()

    def url(self, library: str) -> str:
        return f"http://{library}.localhost:{self.server.port}/"

    def get(self, path: str) -> str:
        """Returns what the server answers."""
        with urllib.request.urlopen(f"{self.server.url}{path}") as answer:
            return str(answer.read().decode())

    def publish(self) -> str:
        """Publishes the next number to the pages of all libraries; returns the number.

        Each event is traced: the libraries must pass over the field of the trace.
        """
        number = str(self._published)
        with spans.collected(), spans.view():
            for name, announcer in self.announcers.items():
                announcer.publish(FRAGMENTS[name](f"<li>{number}</li>"), channel="orders")
        self._published += 1
        return number

    def numbers(self) -> list[str]:
        """Returns all published numbers."""
        return [str(number) for number in range(self._published)]

    @contextlib.contextmanager
    def publishing(self, every: float = 0.05) -> Iterator[None]:
        """Publishes until the block ends."""
        stop = threading.Event()

        def run() -> None:
            while not stop.wait(every):
                self.publish()

        thread = threading.Thread(target=run)
        thread.start()
        yield
        stop.set()
        thread.join()

    def close(self) -> None:
        for announcer in self.announcers.values():
            announcer.close()
        self.stop()


class Result(NamedTuple):
    """What one page showed."""

    published: int
    lost: int
    doubled: int
    in_order: bool
    waits: list[float]  # seconds from showing the page to a fragment that was published while it was hidden


#: The pages by their browser and their library.
Pages = dict[tuple[str, str], Page]


@contextlib.contextmanager
def open_pages(browser: playwright.Browser) -> Iterator[Pages]:
    """Opens an empty page for each library in Chromium and in a new Firefox, until the block ends.

    :param browser: a Chromium.
    """
    with chromium(browser, SCRIPT) as in_chromium, firefox(SCRIPT) as in_firefox:
        opens = dict(zip(BROWSERS, (in_chromium, in_firefox), strict=True))
        yield {
            (name, library): open_page(library) for name, open_page in opens.items() for library in FRAGMENTS
        }


def wait_for(page: Page, expression: str) -> None:
    """Waits until an expression is true in a page."""
    deadline = time.monotonic() + PATIENCE
    while not is_true(page, expression):
        assert time.monotonic() < deadline, f"{expression}: {page.evaluate('numbers().slice(-5)')}"
        time.sleep(0.02)


def is_true(page: Page, expression: str) -> bool:
    """Returns whether an expression is true in a page; False while the page is just being loaded again."""
    try:
        return bool(page.evaluate(expression))
    except (RuntimeError, playwright.Error):
        return False


def wait_for_number(pages: Pages, number: str) -> None:
    for page in pages.values():
        wait_for(page, f"'{number}' in seenAt")


def open_late(site: Site, pages: Pages) -> None:
    """Loads all pages. A page gets its library a second after it was rendered; fragments come meanwhile."""
    site.get("/delay/1.0")
    for (_, library), page in pages.items():
        page.goto(site.url(library))
    eventually(lambda: len(json.loads(site.get("/asked"))) == len(FRAGMENTS), 20)
    numbers = [site.publish() for _ in range(5)]
    site.get("/delay/0.0")
    wait_for_number(pages, numbers[-1])


def hide_and_show(site: Site, pages: Pages, times: int) -> dict[tuple[str, str], list[float]]:
    """Hides and shows all pages; returns for how many seconds each page then waited for a fragment."""
    waits: dict[tuple[str, str], list[float]] = {name: [] for name in pages}
    for _ in range(times):
        for page in pages.values():
            page.evaluate("setHidden(true)")
        while_hidden = site.publish()
        for name, page in pages.items():
            page.evaluate("setHidden(false)")
            wait_for(page, f"'{while_hidden}' in seenAt")
            waits[name].append(max(0.0, page.evaluate(f"seenAt['{while_hidden}'] - shownAt") / 1000))
        site.publish()
    return waits


def restart(site: Site, pages: Pages, times: int) -> None:
    """Stops and starts the server again and again, while fragments are published."""
    for _ in range(times):
        with site.publishing():
            site.stop()
            site.start()
        wait_for_number(pages, site.publish())


def run(site: Site, pages: Pages, hides: int, restarts: int) -> dict[tuple[str, str], Result]:
    """Disturbs all pages; returns what they showed."""
    open_late(site, pages)
    waits = hide_and_show(site, pages, hides)
    restart(site, pages, restarts)
    results, expected = {}, site.numbers()
    for name, page in pages.items():
        shown = page.evaluate("numbers()")
        lost, doubled = Counter(expected) - Counter(shown), Counter(shown) - Counter(expected)
        results[name] = Result(len(expected), lost.total(), doubled.total(), shown == expected, waits[name])
    return results


def main() -> None:
    """Prints all figures. The arguments are the number of times that pages are hidden, and of restarts."""
    hides, restarts = (int(text) for text in sys.argv[1:3] or ("100", "20"))
    folder = Path(tempfile.mkdtemp())
    broker = Server(folder / "valkey").start()
    site = Site(broker.url, folder)
    with run_chromium() as running, open_pages(running) as pages:
        for (browser, library), result in run(site, pages, hides, restarts).items():
            middle, longest = statistics.median(result.waits), max(result.waits)
            print(
                f"{browser:9} {library:9} published {result.published:5} lost {result.lost} "
                f"doubled {result.doubled} in order {result.in_order} "
                f"shown after {middle:.2f} s, at most {longest:.2f} s"
            )
    site.close()
    broker.close()


if __name__ == "__main__":
    main()
