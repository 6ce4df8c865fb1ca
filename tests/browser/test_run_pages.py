"""The example's pages "Order" and "Timer": every page shows the events of the run, also after a reload."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from example_app.signin import DEMO_PASSWORDS

from .conftest import Site, Visit, open_example


def open_run(site: Site, visit: Visit, path: str, name: str, width: int = 1280, height: int = 860) -> Page:
    return open_example(visit(width, height), site, path, name)


def test_an_order_continues_after_a_reload_to_its_end(calm_site: Site, visit: Visit) -> None:
    page = open_run(calm_site, visit, "/orders/", "ada")
    title, bar = page.locator("#progress-title"), page.locator("#progress")
    page.get_by_role("button", name="Place an order").click()
    expect(page.get_by_role("button", name="Place an order")).to_be_disabled()
    expect(title).to_have_text(re.compile("Paid|Packed|Shipped"))
    page.reload()
    expect(title).to_have_text(re.compile("Packed|Shipped|Delivered"))  # the run continued meanwhile
    expect(title).to_have_text("Delivered")
    expect(bar).to_have_attribute("value", "100")
    expect(page.get_by_role("button", name="Cancel")).to_be_disabled()


def test_a_cancelled_order_stops_and_only_its_user_sees_it(calm_site: Site, visit: Visit) -> None:
    page = open_run(calm_site, visit, "/orders/", "ada")
    page.get_by_role("button", name="Place an order").click()
    expect(page.locator("#progress-title")).to_have_text(re.compile("Received|Paid|Packed"))
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#progress-title")).to_have_text("Cancelled")
    grace = open_run(calm_site, visit, "/orders/", "grace")
    expect(grace.locator("#progress-title")).to_have_text("No order yet")
    assert grace.request.get(f"{calm_site.url}/stream?channels=run:order:ada").status == 403


def test_everybody_sees_the_timer_and_can_stop_it(calm_site: Site, visit: Visit) -> None:
    ada = open_run(calm_site, visit, "/timer/", "ada")
    grace = open_run(calm_site, visit, "/timer/", "grace")
    ada.get_by_label("Length").select_option("60")
    ada.get_by_role("button", name="Start").click()
    for page in (ada, grace):
        expect(page.locator("#left")).to_have_text(re.compile(r"0:[1-5]\d"))
        expect(page.locator("#says")).to_have_text("Started by Ada")
    grace.reload()
    expect(grace.locator("#left")).to_have_text(re.compile(r"0:[1-5]\d"))
    grace.get_by_role("button", name="Stop").click()
    for page in (ada, grace):
        expect(page.locator("#says")).to_have_text("Stopped")
        expect(page.get_by_role("button", name="Start")).to_be_enabled()


@pytest.mark.parametrize("path", ["/orders/", "/timer/"])
def test_the_page_fits_a_phone(calm_site: Site, visit: Visit, path: str) -> None:
    page = open_run(calm_site, visit, path, "grace", 390, 844)
    page.get_by_role("button", name=re.compile("Place|Start")).click()
    expect(page.locator("#cancel, #stop")).to_be_enabled()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.locator("#cancel, #stop").click()
    expect(page.locator("#cancel, #stop")).to_be_disabled()


def test_after_signing_in_the_requested_page_opens(calm_site: Site, visit: Visit) -> None:
    page = visit().page
    page.goto(f"{calm_site.url}/timer/")
    page.wait_for_url("**/signin?next=/timer/")
    page.get_by_label("Name").fill("ada")
    page.get_by_label("Password").fill(DEMO_PASSWORDS["ada"])
    page.keyboard.press("Enter")
    page.wait_for_url("**/timer/")
    expect(page.locator("#state")).to_have_attribute("data-state", "open")


def test_the_page_tells_a_user_that_they_are_signed_out(calm_site: Site, visit: Visit) -> None:
    visitor = visit()
    page = open_example(visitor, calm_site, "/timer/", "ada")
    visitor.sign_out_silently()
    page.get_by_role("button", name="Start").click()
    expect(page.locator("#problem")).to_have_text("you are signed out")
    visitor.expect_network_errors()
