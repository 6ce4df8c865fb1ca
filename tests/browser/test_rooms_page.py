"""The example's page "Rooms": one stream enters and leaves rooms, gets earlier messages, and shows the
users."""

from __future__ import annotations

import json

from playwright.sync_api import Locator, Page, Request, expect

from tests.support.deadline import stretched

from .conftest import Site, Visit, Visitor, open_example, seconds_to_first_event


def open_rooms(site: Site, visitor: Visitor, name: str) -> Page:
    return open_example(visitor, site, "/rooms/", name)


def card(page: Page, room: str) -> Locator:
    return page.locator(f"[data-room={room}]")


def enter(page: Page, room: str) -> None:
    """Enters a room by keyboard; returns when the stream has joined it."""
    button = card(page, room).get_by_role("button", name="Enter")
    expect(button).to_be_enabled()
    button.press("Enter")
    expect(card(page, room).get_by_label("Say in the")).to_be_visible()


def leave(page: Page, room: str) -> None:
    """Leaves a room by keyboard; returns when the stream has left it."""
    card(page, room).get_by_role("button", name="Leave").press("Enter")
    expect(card(page, room).get_by_role("button", name="Enter")).to_be_focused()


def say(page: Page, room: str, text: str) -> None:
    field = card(page, room).get_by_label("Say in the")
    field.fill(text)
    field.press("Enter")
    expect(field).to_have_value("")


def expect_said(page: Page, room: str, *texts: str) -> None:
    expect(card(page, room).locator(".text")).to_have_text(list(texts))


def expect_here(page: Page, room: str, who: str) -> None:
    expect(card(page, room).locator(".present")).to_have_text(who)


def test_one_stream_enters_and_leaves_rooms_and_gets_earlier_messages(site: Site, visit: Visit) -> None:
    ada = open_rooms(site, visit(), "ada")
    enter(ada, "garden")
    expect_here(ada, "garden", "you")
    say(ada, "garden", "The <b>roses</b> are out")

    window = visit(390, 844)
    grace = open_rooms(site, window, "grace")
    requests: list[Request] = []
    grace.on("request", lambda request: requests.append(request))
    enter(grace, "garden")
    expect_said(grace, "garden", "The <b>roses</b> are out")
    expect(card(grace, "garden").locator(".mark")).to_have_text("You came in.")
    for page, who in ((ada, "you, Grace"), (grace, "Ada, you")):
        expect_here(page, "garden", who)
    say(grace, "garden", "I see them")
    expect_said(ada, "garden", "The <b>roses</b> are out", "I see them")
    assert grace.evaluate("document.documentElement.scrollWidth") == 390

    # Grace gets no messages of rooms that she is not in. When she enters again, she gets the missed messages.
    enter(ada, "library")
    say(ada, "library", "Quiet here")
    leave(grace, "garden")
    say(ada, "garden", "Where are you?")
    enter(grace, "library")
    expect_said(grace, "library", "Quiet here")
    expect_said(grace, "garden", "The <b>roses</b> are out", "I see them")
    expect_here(ada, "garden", "you")
    enter(grace, "garden")
    expect_said(grace, "garden", "The <b>roses</b> are out", "I see them", "Where are you?")
    expect_here(ada, "garden", "you, Grace")
    assert not any("/stream?" in one.url for one in requests)


def test_a_user_counts_once_and_a_reload_enters_the_rooms_again(site: Site, visit: Visit) -> None:
    ada = open_rooms(site, visit(), "ada")
    enter(ada, "garden")
    visitor = visit()
    grace = open_rooms(site, visitor, "grace")
    enter(grace, "garden")
    second = visitor.another_tab()
    second.goto(f"{site.url}/rooms/")
    enter(second, "garden")
    expect_here(second, "garden", "Ada, you")
    expect_here(ada, "garden", "you, Grace")
    second.close()
    grace.reload()
    expect(card(grace, "garden").get_by_label("Say in the")).to_be_visible()
    assert seconds_to_first_event(grace) < stretched(1.0)
    say(grace, "garden", "still here")
    expect_said(ada, "garden", "still here")
    expect_here(ada, "garden", "you, Grace")
    grace.close()
    expect_here(ada, "garden", "you")


def test_a_new_connection_stays_in_the_rooms(site: Site, visit: Visit) -> None:
    window = visit()
    page = open_rooms(site, window, "ada")
    enter(page, "garden")
    say(page, "garden", "before")
    site.stop()
    expect(page.locator("#state")).to_have_attribute("data-state", "waiting")
    message = {"room": "garden", "by": "Cron", "text": "meanwhile", "at": "2026-01-01T00:00:00Z"}
    site.announcer.publish(message, "said", channel="room:garden")
    site.start()
    expect(page.locator("#state")).to_have_attribute("data-state", "resumed")
    say(page, "garden", "after")
    expect_said(page, "garden", "before", "meanwhile", "after")
    leave(page, "garden")
    site.announcer.publish({**message, "text": "away"}, "said", channel="room:garden")
    enter(page, "garden")
    expect_said(page, "garden", "before", "meanwhile", "after", "away")
    window.expect_network_errors()


WRONG: list[tuple[str, object]] = [
    ("enter", {"room": "attic", "connection": "x"}),
    ("enter", {"room": ["garden"], "connection": "x"}),
    ("enter", {"room": "garden"}),
    ("enter", {"room": "garden", "connection": "x" * 101}),
    ("who", {"room": 5}),
    ("say", {"room": "attic", "text": "x"}),
    ("say", {"room": "garden", "text": " "}),
    ("say", {"room": "garden", "text": "x" * 501}),
]


def test_a_wrong_request_is_refused_with_the_reason(calm_site: Site, visit: Visit) -> None:
    page = visit().sign_in(calm_site.url, "ada")
    for path, body in WRONG:
        url = f"{calm_site.url}/rooms/{path}"
        headers = {"Content-Type": "application/json"}
        answer = page.request.post(url, data=json.dumps(body), headers=headers)
        assert (answer.status, bool(answer.json()["error"])) == (400, True), body
    assert page.request.get(f"{calm_site.url}/stream?channels=room:attic").status == 403
