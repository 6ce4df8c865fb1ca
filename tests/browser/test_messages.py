"""The example's page "Messages": two users in two browsers, delivery marks, and nobody else gets a
message."""

from __future__ import annotations

import json

from playwright.sync_api import Page, Request, Route, expect

from tests.support.deadline import stretched

from .conftest import Site, Visit, Visitor, eventually_on, open_example, open_page, seconds_to_first_event

ID = "0123456789abcdef" * 2
JSON = {"Content-Type": "application/json"}


def open_messages(site: Site, visitor: Visitor, name: str) -> Page:
    return open_example(visitor, site, "/messages/", name)


def write(page: Page, text: str) -> None:
    """Sends a message by keyboard."""
    page.get_by_label("Message").fill(text)
    page.keyboard.press("Enter")
    expect(page.get_by_label("Message")).to_have_value("")


def test_two_users_write_to_each_other_and_see_delivery_marks(site: Site, visit: Visit) -> None:
    ada = open_messages(site, visit(), "ada")
    write(ada, "Is the <b>engine</b> ready?")
    marks = ada.locator("#letters .mark")
    expect(marks).to_have_text("Sent")

    phone = visit(390, 844)
    grace = open_messages(site, phone, "grace")
    expect(grace.locator("#letters .text")).to_have_text("Is the <b>engine</b> ready?")
    assert seconds_to_first_event(grace) < stretched(1.0)
    expect(marks).to_have_text("Delivered")
    write(grace, "Almost. " + "Patience" * 40)
    expect(grace.locator("#letters .mark")).to_have_text("Delivered")
    expect(ada.locator("#letters .text")).to_have_text(
        ["Is the <b>engine</b> ready?", "Almost. " + "Patience" * 40]
    )
    assert ada.locator("#letters b").count() == 0
    assert grace.evaluate("document.documentElement.scrollWidth") == 390

    # After a reload, the page has all messages and marks, and it sends no report.
    reports: list[Request] = []
    grace.on("request", lambda request: reports.append(request))
    grace.reload()
    expect(grace.locator("#letters .text")).to_have_count(2)
    expect(grace.locator("#letters .mark")).to_have_text("Delivered")
    write(ada, "Good.")
    expect(grace.locator("#letters .text")).to_have_count(3)
    expect(ada.locator("#letters .mark").last).to_have_text("Delivered")
    # Playwright may report a request later than its effects.
    eventually_on(grace, lambda: len([one for one in reports if one.url.endswith("/received")]) == 1)


def test_a_message_appears_in_all_windows_of_both_users_and_nowhere_else(site: Site, visit: Visit) -> None:
    visitor = visit()
    ada, grace = open_messages(site, visitor, "ada"), open_messages(site, visit(), "grace")
    second = open_page(visitor.another_tab(), site, "/messages/")
    write(ada, "for you alone")
    for page in (ada, second, grace):
        expect(page.locator("#letters .text")).to_have_text("for you alone")
    for page in (ada, second):
        expect(page.locator("#letters .mark")).to_have_text("Delivered")
    listed = [line.split("  ")[0] for line in site.run("sse", "channels").splitlines()]
    assert sorted(listed) == ["user:ada", "user:grace"]

    nobody = visit().page
    nobody.goto(f"{site.url}/live/")
    for channel in ("user:ada", "user:grace"):
        assert nobody.request.get(f"{site.url}/stream?channels={channel}").status == 401
    assert ada.request.get(f"{site.url}/stream?channels=user:grace").status == 403


def test_a_message_sent_again_after_no_answer_is_shown_once(site: Site, visit: Visit) -> None:
    ada_window = visit()
    ada, grace = open_messages(site, ada_window, "ada"), open_messages(site, visit(), "grace")

    def lose_the_answer(route: Route) -> None:
        route.fetch()
        route.abort()

    ada.route("**/messages/send", lose_the_answer, times=1)
    ada.get_by_label("Message").fill("once")
    ada.keyboard.press("Enter")
    expect(ada.locator("#problem")).to_have_text("The server did not answer; try again.")
    expect(ada.get_by_label("Message")).to_have_value("once")
    ada.keyboard.press("Enter")
    expect(ada.get_by_label("Message")).to_have_value("")
    write(ada, "twice")
    for page in (ada, grace):
        expect(page.locator("#letters .text")).to_have_text(["once", "twice"])
    ada_window.expect_network_errors()


WRONG: list[tuple[str, object]] = [
    ("send", {"to": "grace", "text": " ", "id": ID}),
    ("send", {"to": "grace", "text": "x" * 1001, "id": ID}),
    ("send", {"to": "grace", "text": "x", "id": "1"}),
    ("send", {"to": "ada", "text": "x", "id": ID}),
    ("send", {"to": "nobody", "text": "x", "id": ID}),
    ("send", {"to": ["grace"], "text": "x", "id": ID}),
    ("received", {"from": "grace", "ids": []}),
    ("received", {"from": "grace", "ids": [ID] * 51}),
    ("received", {"from": "grace", "ids": ["x"]}),
    ("received", {"from": "grace", "ids": ID}),
    ("received", {"from": "ada", "ids": [ID]}),
]


def test_a_wrong_request_is_refused_with_the_reason(calm_site: Site, visit: Visit) -> None:
    page = visit().sign_in(calm_site.url, "ada")
    for path, body in WRONG:
        url = f"{calm_site.url}/messages/{path}"
        answer = page.request.post(url, data=json.dumps(body), headers=JSON)
        assert (answer.status, bool(answer.json()["error"])) == (400, True), body
