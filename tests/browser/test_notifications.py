"""The example's page "Notifications": they reach one user, and all windows show which ones are read."""

from __future__ import annotations

import pytest
from playwright.sync_api import Locator, Page, expect

from .conftest import Site, Visit, assert_prompt, open_example, open_page
from .test_stock import SLOW_FIRST_ANSWER

PATH = "/notifications/"
NOBODY = "choose whom to tell, and a level"  # the answer to a notification for a user who does not exist


def send(page: Page, to: str, level: str, text: str) -> None:
    page.get_by_label("To").select_option(to)
    page.get_by_label("Level").select_option(level)
    page.get_by_label("Text").fill(text)
    page.keyboard.press("Enter")


def offer_nobody(page: Page) -> None:
    """Lets the page send to a user who does not exist."""
    page.locator("[name=to] option").first.evaluate("option => { option.value = 'nobody' }")


def in_list(page: Page, text: str) -> Locator:
    return page.locator("#inbox .notice").filter(has_text=text)


def popped_up(page: Page, text: str) -> Locator:
    return page.locator("#toasts .notice").filter(has_text=text)


def test_a_notification_reaches_all_windows_of_its_user_only(site: Site, visit: Visit) -> None:
    ada, grace = visit(), visit()
    sender = open_example(ada, site, PATH, "ada")
    one = open_example(grace, site, PATH, "grace")
    two = open_page(grace.another_tab(), site, PATH)
    send(sender, "grace", "error", "the <b>disk</b> is full")
    for page in (one, two):
        expect(popped_up(page, "the <b>disk</b> is full")).to_be_visible()
        expect(in_list(page, "the <b>disk</b> is full").locator(".badge")).to_have_text("error")
        expect(page.locator("#unread")).to_have_text("1")
        expect(page).to_have_title("(1) Notifications · flask_sse_push")
        assert page.locator(".notice b").count() == 0
    send(sender, "ada", "warning", "to myself")
    expect(in_list(sender, "to myself")).to_be_visible()
    expect(sender.locator("#inbox .notice")).to_have_count(1)

    popped_up(one, "disk").get_by_role("button", name="Close").click()
    for page in (one, two):
        expect(page.locator("#toasts .notice")).to_have_count(0)
        expect(page.locator("#unread")).to_have_text("0")
        expect(in_list(page, "disk")).to_be_hidden()
    two.get_by_role("button", name="All", exact=True).click()
    in_list(two, "disk").get_by_role("button", name="Dismiss").click()
    for page in (one, two):
        expect(page.locator("#inbox .notice")).to_have_count(0)


def test_after_a_reload_the_list_is_complete_and_nothing_pops_up(site: Site, visit: Visit) -> None:
    page = open_example(visit(), site, PATH, "ada")
    for number in range(3):
        send(page, "ada", "critical", f"number {number}")
        expect(in_list(page, f"number {number}")).to_be_visible()
    expect(page.locator("#toasts .notice")).to_have_count(3)
    in_list(page, "number 1").get_by_role("button", name="Mark as read").click()
    expect(page.locator("#unread")).to_have_text("2")
    page.reload()
    expect(page.locator("#unread")).to_have_text("2")
    expect(page.locator("#inbox .notice .text")).to_have_text(["number 2", "number 1", "number 0"])
    assert_prompt(page)
    expect(page.locator("#unread")).to_have_text("2")
    assert page.locator("#toasts .notice").count() == 0
    page.get_by_role("button", name="Mark all read").click()
    expect(page.locator("#unread")).to_have_text("0")
    expect(page.locator("#nothing")).to_be_visible()


def test_an_info_toast_disappears_by_itself(calm_site: Site, visit: Visit) -> None:
    page = open_example(visit(), calm_site, PATH, "grace")
    send(page, "grace", "info", "by the way")
    expect(popped_up(page, "by the way")).to_be_visible()
    expect(popped_up(page, "by the way")).to_have_count(0)
    expect(in_list(page, "by the way")).to_be_visible()


def test_the_page_explains_why_a_notification_was_not_sent(calm_site: Site, visit: Visit) -> None:
    visitor = visit()
    page = open_example(visitor, calm_site, PATH, "ada")
    offer_nobody(page)
    send(page, "nobody", "info", "hello")
    expect(page.locator("#problem")).to_have_text(NOBODY)
    visitor.expect_network_errors()


def test_a_late_answer_does_not_remove_the_alert_about_a_later_click(calm_site: Site, visit: Visit) -> None:
    visitor = visit()
    page = open_example(visitor, calm_site, PATH, "ada")
    send(page, "ada", "error", "still unread")
    expect(in_list(page, "still unread")).to_be_visible()
    offer_nobody(page)
    page.evaluate(SLOW_FIRST_ANSWER)
    in_list(page, "still unread").get_by_role("button", name="Mark as read").click()
    send(page, "nobody", "error", "hello")
    expect(page.locator("#problem")).to_have_text(NOBODY)
    assert page.evaluate("posts") == ["asked", "answered", "asked", "answered"]
    visitor.expect_network_errors()


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits(calm_site: Site, visit: Visit, width: int) -> None:
    page = open_example(visit(width, 844), calm_site, PATH, "grace")
    send(page, "grace", "warning", f"{width}" * 60)
    expect(popped_up(page, f"{width}{width}")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == width
