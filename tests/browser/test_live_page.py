"""The example's page "Live": events of all kinds arrive, and private events reach only their user."""

from __future__ import annotations

import math
import re
import time
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from example_app import PAGES
from example_app.signin import DEMO_PASSWORDS

from .conftest import Site, Visit, open_example


def event(page: Page, text: str) -> Locator:
    """Returns the item of the event with this text."""
    return page.locator("#feed li").filter(has=page.get_by_text(text, exact=True))


def test_the_ticks_of_another_process_reach_everybody(calm_site: Site, visit: Visit) -> None:
    visitor = visit()
    page = visitor.page
    page.goto(f"{calm_site.url}/live/")
    expect(page.locator("#state")).to_have_text("Live")
    number, curve = page.locator("#tick-number"), page.locator("#curve polyline")
    with calm_site.ticker():
        expect(number).to_have_text(re.compile(r"\d+"))
        before, drawn = number.inner_text(), curve.get_attribute("points") or ""
        expect(number).not_to_have_text(before)
        expect(curve).not_to_have_attribute("points", drawn)
    assert visitor.hosts == {calm_site.url.removeprefix("http://")}


def test_an_event_published_by_the_form_reaches_the_other_user(calm_site: Site, visit: Visit) -> None:
    ada, grace = visit(), visit()
    open_example(ada, calm_site, "/live/", "ada")
    open_example(grace, calm_site, "/live/", "grace")

    ada.page.get_by_label("To").select_option("chat")
    ada.page.get_by_label("Text").fill("Good morning, <b>Grace</b>.")
    ada.page.keyboard.press("Enter")

    expect(ada.page.locator("#published")).to_have_text("Published.")
    expect(ada.page.get_by_label("Text")).to_have_value("")
    for visitor in (ada, grace):
        item = event(visitor.page, "Good morning, <b>Grace</b>.")
        expect(item.locator(".badge")).to_have_text("chat")
        expect(item.locator(".from")).to_have_text("Ada")
        assert item.locator("b").count() == 0


def test_a_private_event_reaches_only_its_user(calm_site: Site, visit: Visit) -> None:
    ada, grace = visit(), visit()
    open_example(ada, calm_site, "/live/", "ada")
    open_example(grace, calm_site, "/live/", "grace")

    ada.page.get_by_label("To").select_option("user:grace")
    ada.page.get_by_label("Text").fill("for you")
    ada.page.get_by_role("button", name="Publish").click()
    expect(event(grace.page, "for you").locator(".badge")).to_have_text("private")
    calm_site.announcer.publish("for all", channel="news")
    expect(event(ada.page, "for all")).to_be_visible()

    assert "for you" not in ada.texts()
    refused = ada.page.request.get(f"{calm_site.url}/stream?channels=news,user:grace")
    assert refused.status == 403
    assert refused.json()["name"] == "PERMISSION_DENIED"


def test_windows_stay_live_when_they_begin_to_share_a_connection(calm_site: Site, visit: Visit) -> None:
    visitor = visit()
    pages = [open_example(visitor, calm_site, "/live/", "ada"), visitor.another_tab()]
    pages[1].goto(f"{calm_site.url}/live/")
    for page in pages:
        expect(page.locator("#log")).to_contain_text("moved to another connection")
        expect(page.locator("#state")).to_have_text("Live")


def test_an_event_published_by_the_command_line_arrives(calm_site: Site, visit: Visit) -> None:
    page = open_example(visit(), calm_site, "/live/", "ada")
    calm_site.run("sse", "publish", "news", '{"hello": 1}')
    expect(event(page, '{"hello":1}').locator(".badge")).to_have_text("message")


def test_a_page_shows_events_published_before_it_was_opened(calm_site: Site, visit: Visit) -> None:
    calm_site.announcer.publish({"from": "Cron", "text": "earlier"}, "news", channel="news")
    page = open_example(visit(), calm_site, "/live/", "grace")
    expect(event(page, "earlier").locator(".from")).to_have_text("Cron")


def test_the_form_says_why_an_event_was_not_published(calm_site: Site, visit: Visit) -> None:
    visitor = visit()
    page = open_example(visitor, calm_site, "/live/", "ada")
    page.locator("[name=channel] option").first.evaluate("option => { option.value = 'ticks' }")
    page.get_by_label("Text").fill("no")
    page.keyboard.press("Enter")
    expect(page.locator("#published")).to_have_text("publishing to 'ticks' is not allowed")
    expect(page.get_by_label("Text")).to_have_value("no")
    visitor.expect_network_errors()


def test_a_user_signs_in_with_the_keyboard_and_signs_out(calm_site: Site, visit: Visit) -> None:
    page = visit().page
    page.goto(f"{calm_site.url}/signin?next=/live/")
    page.get_by_label("Name").fill("ada")
    page.get_by_label("Name").press("Tab")
    page.keyboard.type(DEMO_PASSWORDS["ada"])
    page.keyboard.press("Enter")
    expect(page.locator("#state")).to_have_text("Live")
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/signin")
    page.get_by_role("link", name="Live").click()
    expect(page.locator("#state")).to_have_text("Live")
    expect(page.locator(".intro code")).to_have_text(["news", "ticks"])
    page.get_by_role("link", name="Sign in").first.click()
    page.get_by_label("Name").fill("ada")
    page.get_by_label("Password").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("That name and password do not go together.")


@pytest.mark.parametrize(("name", "width", "height"), [("phone", 390, 844), ("desktop", 1280, 860)])
def test_the_page_fits(
    calm_site: Site, visit: Visit, tmp_path: Path, name: str, width: int, height: int
) -> None:
    visitor = visit(width, height)
    visitor.page.goto(f"{calm_site.url}/live/")
    visitor.page.screenshot(path=tmp_path / f"{name}-visitor.png", full_page=True, animations="disabled")
    assert visitor.page.evaluate("document.documentElement.scrollWidth") == width
    visitor.page.goto(f"{calm_site.url}/signin")
    visitor.page.screenshot(path=tmp_path / f"{name}-signin.png", full_page=True, animations="disabled")
    page = open_example(visitor, calm_site, "/live/", "grace")
    with calm_site.announcer.batch() as batch:
        for number in range(100):
            tick = {"number": number, "value": 50 + 5 * math.sin(number / 8), "at_ms": time.time() * 1000}
            batch.publish(tick, "tick", channel="ticks", ttl=0)
        batch.publish({"from": "Ada", "text": "The loom weaves flowers and leaves."}, "news", channel="news")
        batch.publish({"from": "Ada", "text": "long" * 60}, "chat", channel="chat")
        batch.publish({"from": "Ada", "text": f"ありがとう 👋 {name}"}, "private", channel="user:grace")
    expect(event(page, f"ありがとう 👋 {name}")).to_be_visible()
    expect(page.locator("#tick-number")).to_have_text("99")
    page.screenshot(path=tmp_path / f"{name}.png", full_page=True, animations="disabled")
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_the_keyboard_reaches_everything_in_the_order_of_the_page(calm_site: Site, visit: Visit) -> None:
    page = open_example(visit(), calm_site, "/live/", "ada")
    reached: list[str] = []
    while "#feed" not in reached and len(reached) < 40:
        page.keyboard.press("Tab")
        reached.append(page.evaluate(NAME_OF_FOCUS))
    pages = list(PAGES)
    assert reached == ["a.skip", "a.brand", *pages, "Admin", "Sign out", *FORM, "#feed"]


FORM = ("channel", "text", "Publish", "pre.command", "#copy")

NAME_OF_FOCUS = """() => {
  const { id, className, name, localName, textContent } = document.activeElement;
  const named = className && ["a", "pre"].includes(localName);
  return id ? `#${id}` : name || (named ? `${localName}.${className}` : textContent.trim());
}"""
