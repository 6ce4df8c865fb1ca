"""The example's page "Activity": one list of several channels, filters, older events, and a note about new
ones."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

from playwright.sync_api import Page, expect

from tests.support.deadline import stretched

from .conftest import Site, Visit, Visitor, open_example, seconds_to_first_event


def tell(site: Site, kind: str, *texts: str) -> None:
    """Publishes events of a kind from another process."""
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    with site.announcer.batch() as batch:
        for text in texts:
            event = {"kind": kind, "by": "Cron", "text": text, "at": at}
            batch.publish(event, "activity", channel=f"activity:{kind}")


def open_feed(site: Site, visitor: Visitor, name: str = "ada") -> Page:
    return open_example(visitor, site, "/activity/", name)


def texts(page: Page) -> list[str]:
    """Returns the texts that the list shows, newest first."""
    return page.locator("#events li:visible .text").all_text_contents()


def test_an_event_entered_by_keyboard_appears_in_every_users_list(site: Site, visit: Visit) -> None:
    ada, grace = open_feed(site, visit()), open_feed(site, visit(), "grace")
    expect(ada.locator("#nothing")).to_be_visible()
    ada.get_by_role("combobox").focus()
    ada.keyboard.type("Deploy")
    ada.keyboard.press("Tab")
    ada.keyboard.type("Version <b>2</b>")
    ada.keyboard.press("Enter")
    for page in (ada, grace):
        item = page.locator("#events li")
        expect(item.locator(".text")).to_have_text("Version <b>2</b>")
        expect(item.locator(".badge")).to_have_text("deploy")
        expect(item.locator(".by")).to_have_text("Ada")
        expect(item.locator("time")).to_have_text(re.compile(r"^\d\d:\d\d:\d\d$"))
    expect(ada.get_by_label("What happened")).to_have_value("")
    expect(ada.get_by_label("What happened")).to_be_focused()


def test_filters_hide_and_show_kinds(site: Site, visit: Visit) -> None:
    tell(site, "comment", "one")
    tell(site, "alert", "two")
    page = open_feed(site, visit())
    expect(page.locator("#events li")).to_have_count(2)
    for _ in range(5):  # a busy machine may delay a load
        if seconds_to_first_event(page) < stretched(1.0):
            break
        page.reload()
        expect(page.locator("#events li")).to_have_count(2)
    assert seconds_to_first_event(page) < stretched(1.0)
    comments = page.get_by_role("button", name="Comments")
    comments.press("Enter")
    expect(comments).to_have_attribute("aria-pressed", "false")
    assert texts(page) == ["two"]
    tell(site, "comment", "three")
    tell(site, "alert", "four")
    expect(page.locator("#events li")).to_have_count(4)
    assert texts(page) == ["four", "two"]
    comments.press("Enter")
    assert texts(page) == ["four", "three", "two", "one"]


def test_older_events_are_replayed_until_there_are_no_more(site: Site, visit: Visit) -> None:
    every = [f"event {number}" for number in range(50)]
    for number, text in enumerate(every):
        tell(site, ("comment", "deploy", "alert")[number % 3], text)
    page = open_feed(site, visit(390, 844))
    rows, older = page.locator("#events li"), page.get_by_role("button", name="Older")
    expect(rows).to_have_count(20)
    older.press("Enter")
    expect(rows).to_have_count(40)
    expect(older).to_be_focused()
    older.press("Enter")
    expect(rows).to_have_count(50)
    expect(older).to_be_hidden()
    expect(page.locator("#end")).to_have_text("This is all that is kept.")
    assert texts(page) == every[::-1]
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    # The page has closed the stream that replayed older events. Its own stream is still open.
    tell(site, "alert", "the last")
    page.evaluate("scrollTo(0, 0)")
    expect(rows).to_have_count(51)


def test_new_events_do_not_move_the_list_while_the_user_reads_further_down(site: Site, visit: Visit) -> None:
    tell(site, "comment", *(f"event {number}" for number in range(20)))
    page = open_feed(site, visit(390, 844))
    rows = page.locator("#events li")
    expect(rows).to_have_count(20)
    rows.last.scroll_into_view_if_needed()
    expect(page.locator("#events[data-away]")).to_be_visible()
    before = rows.last.bounding_box()
    tell(site, "alert", "new 0", "new 1", "new 2")
    fresh = page.get_by_role("button", name="3 new")
    expect(fresh).to_be_visible()
    expect(page.get_by_role("status").filter(has_text="3 new above")).to_be_attached()
    assert texts(page)[0] == "event 19"
    assert rows.last.bounding_box() == before
    fresh.press("Enter")
    page.wait_for_function("scrollY === 0")
    expect(page.locator("#fresh")).to_be_hidden()
    assert texts(page)[:4] == ["new 2", "new 1", "new 0", "event 19"]
    expect(page.locator("#events")).to_be_focused()


JSON = {"Content-Type": "application/json"}
WRONG: list[object] = [
    {"kind": "comment", "text": " "},
    {"kind": "comment", "text": "x" * 201},
    {"kind": "comment", "text": 5},
    {"kind": "party", "text": "x"},
    {"kind": ["comment"], "text": "x"},
    ["comment"],
]


def test_a_wrong_event_is_refused_with_the_reason(calm_site: Site, visit: Visit) -> None:
    page = visit().sign_in(calm_site.url, "ada")
    for body in WRONG:
        answer = page.request.post(f"{calm_site.url}/activity/do", data=json.dumps(body), headers=JSON)
        assert (answer.status, bool(answer.json()["error"])) == (400, True), body


def test_only_members_get_the_page_and_its_channels(calm_site: Site, visit: Visit) -> None:
    page = visit().page
    page.goto(f"{calm_site.url}/activity/")
    assert page.url.endswith("/signin?next=/activity/")
    assert page.request.get(f"{calm_site.url}/stream?channels=activity:comment").status == 401
