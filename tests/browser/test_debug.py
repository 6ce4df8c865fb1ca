"""The example's page "Debug": the client's statistics, raw frames, all connections, the workers' health."""

from __future__ import annotations

import re
from contextlib import ExitStack

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.support.stream import Stream

from .conftest import Site, Visit, Visitor, assert_prompt, eventually_on, open_example

PATH = "/debug/"


def open_debug(visitor: Visitor, site: Site) -> Page:
    """Opens the page as an admin."""
    # The health of a worker is critical while its first stream opens, since it has no link to the broker yet.
    visitor.expect_errors("503 (SERVICE UNAVAILABLE)")
    return open_example(visitor, site, PATH, "ada")


def streams(page: Page, user: str) -> Locator:
    """Returns the rows of a user's streams."""
    cell = page.locator("td:first-child").get_by_text(user, exact=True)
    return page.locator("#streams tr").filter(has=cell)


def all_are_shown(page: Page, site: Site, more: ExitStack) -> bool:
    """Returns whether the page shows both workers.

    It does not show a worker without streams. So this opens one more stream, which either worker may take.
    """
    if page.locator("#workers tr").count() == 2:
        return True
    more.enter_context(Stream(f"{site.url}/stream?channels=news")).next_of("sse.open")
    return False


def test_the_client_counts_its_events_and_the_frames_show_their_bytes(calm_site: Site, visit: Visit) -> None:
    page = open_debug(visit(), calm_site)
    expect(page.locator("#connected")).to_have_text("yes")
    page.get_by_role("button", name="Send a test event").click()
    expect(page.locator("#last-type")).to_have_text("test")
    expect(page.locator("#last-data")).to_have_text('{"text":"a test\\nin two lines"}')
    expect(page.locator("#last-id")).to_have_text(re.compile(r"^\S+-\S+$"))
    received = int(page.locator("#received").inner_text())
    frame = page.locator("#frames li").filter(has_text="event: test")
    expect(frame).to_contain_text(re.compile(r'data: {"text": ?"a test\\nin two lines"}'))
    expect(frame).to_contain_text("id: ")
    page.get_by_role("button", name="Send a test event").click()
    eventually_on(page, lambda: int(page.locator("#received").inner_text()) > received)
    assert_prompt(page)


def test_held_frames_do_not_change(calm_site: Site, visit: Visit) -> None:
    page = open_debug(visit(), calm_site)
    expect(page.locator("#frames li").filter(has_text="sse.open")).to_have_count(1)
    page.get_by_role("button", name="Hold").click()
    calm_site.announcer.publish("while it is held", "test", channel="news")
    expect(page.locator("#last-data")).to_have_text("while it is held")
    page.get_by_role("button", name="Hold").click()
    calm_site.announcer.publish("afterwards", "test", channel="news")
    expect(page.locator("#frames li").filter(has_text="afterwards")).to_be_visible()
    assert page.locator("#frames li").filter(has_text="while it is held").count() == 0


def test_a_connection_that_is_cut_reconnects(calm_site: Site, visit: Visit) -> None:
    page = open_debug(visit(), calm_site)
    before = page.locator("#connection").inner_text()
    page.get_by_role("button", name="Cut this connection").click()
    expect(page.locator("#reconnects")).to_have_text("1")
    expect(page.locator("#state")).to_have_attribute("data-state", "resumed")
    expect(page.locator("#connection")).not_to_have_text(before)


def test_the_page_shows_the_streams_of_all_workers_and_can_end_one(site: Site, visit: Visit) -> None:
    grace = visit()
    other = open_example(grace, site, "/timer/", "grace")
    page = open_debug(visit(), site)
    with ExitStack() as more:
        eventually_on(page, lambda: all_are_shown(page, site, more))
    expect(page.locator("#health")).to_have_text("HEALTHY")
    expect(streams(page, "ada")).to_have_count(2)  # the client's stream, and the stream of the raw frames
    expect(page.locator("#streams tr.own")).to_have_count(1)
    row = streams(page, "grace")
    expect(row.locator(".channels")).to_have_text("run:timer")
    before = row.get_attribute("data-connection") or ""
    row.get_by_role("button").press("Enter")
    expect(page.locator(f'#streams tr[data-connection="{before}"]')).to_have_count(0)
    expect(streams(page, "grace")).to_have_count(1)  # a new connection of the same client
    expect(other.locator("#state")).to_have_attribute("data-state", re.compile("open|resumed"))


def test_it_is_for_admins(calm_site: Site, visit: Visit) -> None:
    grace = open_example(visit(), calm_site, "/live/", "grace")
    assert grace.get_by_role("link", name="Debug").count() == 0
    for path in (PATH, f"{PATH}connections", "/stream/stats", "/stream/health"):
        assert grace.request.get(f"{calm_site.url}{path}").status == 403
    assert grace.request.post(f"{calm_site.url}{PATH}disconnect", data={"connection": "x"}).status == 403


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits(calm_site: Site, visit: Visit, width: int) -> None:
    page = open_debug(visit(width, 844), calm_site)
    expect(streams(page, "ada").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == width
