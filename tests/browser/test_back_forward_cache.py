"""The stream continues after the browser has kept a page in the back-forward cache and shown it again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.support.processes import need

from .conftest import PATIENCE, Counting, Launch, eventually_on
from .plain import Server, server

__all__ = ["server"]

LISTEN = """async (options) => {
  const { PushClient } = await import("/stream/client/push-client.js");
  window.received = [];
  window.states = [];
  window.shows = [];
  window.resets = 0;
  addEventListener("pageshow", ({ persisted }) => shows.push(persisted));
  window.client = new PushClient("/stream?channels=cached", { minDelay: 50, ...options });
  client.on("message", ({ data }) => received.push(data));
  client.on("sse.reset", () => { resets += 1; });
  client.addEventListener("statechange", ({ detail }) => states.push([detail.state, detail.reason]));
}"""


@pytest.fixture(scope="module")
def caching_chromium(launch: Launch) -> Iterator[Browser]:
    """Runs a Chromium with its back-forward cache. Playwright disables this cache by default, and a Chromium
    without windows has none."""
    options = {"ignore_default_args": ["--disable-back-forward-cache"]}
    with launch(executable_path=need("chromium"), **options) as browser:
        yield browser


@pytest.fixture
def page(caching_chromium: Browser) -> Iterator[Page]:
    context = caching_chromium.new_context()
    context.set_default_timeout(PATIENCE)
    yield context.new_page()
    context.close()


def go(page: Page, step: str, path: str) -> None:
    """Lets the page navigate by itself. Playwright's methods would wait for a load event, which does not
    come."""
    page.evaluate(f"setTimeout(() => {step})")
    eventually_on(
        page, lambda: page.url.endswith(path) and page.evaluate("document.readyState") == "complete"
    )


@pytest.mark.parametrize(
    "options", [{}, {"transport": "fetch"}, {"tabs": True}], ids=["EventSource", "fetch", "tabs"]
)
def test_a_page_from_the_cache_gets_every_event_once(
    server: Server, page: Page, options: dict[str, Any]
) -> None:
    page.goto(server.url)
    page.evaluate(LISTEN, options)
    eventually_on(page, lambda: page.evaluate("client.state") == "open")
    page.evaluate("import('/stream/client/page-lifecycle.js').then(() => {})")
    rounds = 2
    with Counting(server.announcer, "cached") as counting:
        for number in range(1, rounds + 1):
            before = counting.count
            eventually_on(page, lambda before=before: page.evaluate("received.length") > before)  # type: ignore[misc]
            go(page, "location.assign('/stats')", "/stats")
            server.wait_for_streams(page)  # the page has closed its stream
            left = counting.count
            eventually_on(page, lambda left=left: counting.count > left + 20)  # type: ignore[misc]
            go(page, "history.back()", "/")
            assert page.evaluate("shows") == [True] * number  # the cache was used: no new load
    eventually_on(page, lambda: page.evaluate("received.length") >= counting.count)
    assert page.evaluate("received.map(String)") == counting.numbers()
    assert page.evaluate("resets") == 0
    assert page.evaluate("states.filter(([, reason]) => reason)") == [["waiting", "left"]] * rounds
    server.wait_for_streams(page, {"cached"})
