"""A page may be offline, hidden or frozen. Afterwards the client has missed no event."""

from __future__ import annotations

from playwright.sync_api import Page

from .conftest import Visitor, eventually_on
from .script import Script, Started, event, note, opening, states
from .test_push_client import FOLLOWED, SOON, script, start, visitor

__all__ = ["script", "start", "visitor"]

#: Makes the page look hidden or visible. A browser without a screen never hides a page.
SHOW = """(hidden) => {
  Object.defineProperty(document, "hidden", { configurable: true, value: hidden });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


def ready(page: Page) -> None:
    """Waits until the stream is open and the client follows the state of the page."""
    eventually_on(page, lambda: page.evaluate("client.state") == "open")
    page.evaluate(FOLLOWED)


def test_offline_closes_and_online_resumes(script: Script, start: Started, visitor: Visitor) -> None:
    script.then(opening(), opening(resumed=True) + event(1))
    page = start(note("message"), minDelay=60_000)
    ready(page)
    page.context.set_offline(True)
    eventually_on(page, lambda: page.evaluate("client.state") == "waiting")
    page.context.set_offline(False)
    eventually_on(page, lambda: page.evaluate("notes.at(-1).data") == 1)
    assert states(page) == [("open", None), ("waiting", "offline"), ("connecting", None), ("open", None)]
    assert script.cursors == [None, "e-1"]


def test_a_page_hidden_for_long_resumes_when_shown(script: Script, start: Started, visitor: Visitor) -> None:
    visitor.page.clock.install()
    # The clock also runs by itself. The times are long, so that the steps of a slow machine do not count.
    script.then(opening(heartbeat=10**5), opening(heartbeat=10**5, resumed=True) + event(1))
    page = start(note("message"), hiddenAfter=1_000_000)
    ready(page)
    page.evaluate(SHOW, True)
    page.clock.run_for(500_000)
    page.evaluate(SHOW, False)
    page.clock.run_for(2_000_000)
    assert page.evaluate("client.state") == "open"
    page.evaluate(SHOW, True)
    page.clock.run_for(1_000_000)
    assert page.evaluate("client.state") == "waiting"
    page.evaluate(SHOW, False)
    eventually_on(page, lambda: page.evaluate("notes.at(-1).data") == 1)
    assert script.cursors == [None, "e-1"]


def test_a_time_longer_than_a_timer_can_be_means_forever(script: Script, start: Started) -> None:
    script.then(opening())
    page = start(hiddenAfter=2**31)
    ready(page)
    page.evaluate(SHOW, True)
    page.evaluate(SOON)
    assert page.evaluate("client.state") == "open"


def test_by_default_a_hidden_page_keeps_its_stream(script: Script, start: Started, visitor: Visitor) -> None:
    visitor.page.clock.install()
    script.then(opening(heartbeat=10**5))
    page = start()
    ready(page)
    page.evaluate(SHOW, True)
    page.clock.run_for(3_600_000)
    assert page.evaluate("client.state") == "open"


def test_a_frozen_page_closes_its_connection_and_resumes(script: Script, start: Started) -> None:
    script.then(opening(), opening(resumed=True) + event(1))
    page = start(note("message"), minDelay=60_000)
    ready(page)
    # The test sends the browser's event itself: a browser freezes no visible page, and without a screen all
    # pages are visible.
    page.evaluate("document.dispatchEvent(new Event('freeze'))")
    assert page.evaluate("client.state") == "waiting"
    page.evaluate("document.dispatchEvent(new Event('resume'))")
    eventually_on(page, lambda: page.evaluate("notes.at(-1).data") == 1)
    assert ("waiting", "frozen") in states(page)
    assert script.cursors == [None, "e-1"]


def test_a_closed_client_does_not_resume(script: Script, start: Started) -> None:
    script.then(opening())
    page = start()
    ready(page)
    page.context.set_offline(True)
    eventually_on(page, lambda: page.evaluate("client.state") == "waiting")
    page.evaluate("client.close()")
    page.context.set_offline(False)
    page.evaluate("dispatchEvent(new Event('online'))")
    assert page.evaluate("client.state") == "closed"
    assert len(script.requests) == 1
