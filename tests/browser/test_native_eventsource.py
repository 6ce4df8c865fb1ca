"""The browser's own EventSource, without the client module, loses nothing either."""

from __future__ import annotations

import os
import signal

from .conftest import Counting, Site, Visit, eventually_on

LISTEN = """() => {
  window.heard = [];
  window.opened = [];
  window.farewells = 0;
  const source = new EventSource("/stream?channels=news");
  source.addEventListener("message", ({ data }) => heard.push(data));
  source.addEventListener("sse.open", ({ data }) => opened.push(JSON.parse(data).resumed));
  source.addEventListener("sse.close", () => { farewells += 1; });
}"""


def test_a_drain_costs_the_native_client_nothing(site: Site, visit: Visit) -> None:
    visitor = visit()
    page = visitor.page
    page.goto(f"{site.url}/signin")
    page.evaluate(LISTEN)
    eventually_on(page, lambda: page.evaluate("opened.length") == 1)
    with Counting(site.announcer, "news") as counting:
        eventually_on(page, lambda: page.evaluate("heard.length") > 10)
        os.kill(site.server.process.pid, signal.SIGHUP)
        eventually_on(page, lambda: page.evaluate("farewells") > 0)
        eventually_on(page, lambda: page.evaluate("opened.length > farewells"))
    eventually_on(page, lambda: page.evaluate("heard.length") >= counting.count)
    assert page.evaluate("heard") == counting.numbers()
    # More than once when it came back to another worker that was about to stop, too.
    first, *later = page.evaluate("opened")
    assert first is False
    assert all(later)
    visitor.forgive_network_errors()
