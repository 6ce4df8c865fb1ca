"""The browser's own EventSource, without our client, loses no event either."""

from __future__ import annotations

import os
import signal

from .conftest import Counting, Site, Visit, eventually_on

LISTEN = """() => {
  window.received = [];
  window.opened = [];
  window.closes = 0;
  const source = new EventSource("/stream?channels=news");
  source.addEventListener("message", ({ data }) => received.push(data));
  source.addEventListener("sse.open", ({ data }) => opened.push(JSON.parse(data).resumed));
  source.addEventListener("sse.close", () => { closes += 1; });
}"""


def test_a_native_client_loses_no_event_in_a_drain(site: Site, visit: Visit) -> None:
    visitor = visit()
    page = visitor.page
    page.goto(f"{site.url}/signin")
    page.evaluate(LISTEN)
    eventually_on(page, lambda: page.evaluate("opened.length") == 1)
    with Counting(site.announcer, "news") as counting:
        eventually_on(page, lambda: page.evaluate("received.length") > 10)
        os.kill(site.server.process.pid, signal.SIGHUP)
        eventually_on(page, lambda: page.evaluate("closes") > 0)
        eventually_on(page, lambda: page.evaluate("opened.length > closes"))
    eventually_on(page, lambda: page.evaluate("received.length") >= counting.count)
    assert page.evaluate("received") == counting.numbers()
    # The client reconnects more than once if it reaches another worker that is about to stop.
    first, *later = page.evaluate("opened")
    assert first is False
    assert all(later)
    visitor.expect_network_errors()
