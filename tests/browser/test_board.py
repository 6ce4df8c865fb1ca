"""The example's page "Board": several people move cards, and htmx shows each change in all pages."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from .conftest import Site, Visit, eventually_on, open_example

TEXT = "Sharpen <b>all</b> pencils & pens"


def column(page: Page, name: str) -> list[str]:
    """Returns the texts of the cards in a column."""
    texts: list[str] = page.evaluate(
        "name => [...document.getElementById(name).parentElement.querySelectorAll('.text')]"
        ".map((text) => text.textContent)",
        name,
    )
    return texts


def move(page: Page, text: str, to: str) -> None:
    page.get_by_role("button", name=f"Move “{text}” to {to}").click()


def test_each_change_shows_in_the_windows_of_all_people(calm_site: Site, visit: Visit) -> None:
    ada, grace = visit(), visit(390)
    pages = [
        open_example(ada, calm_site, "/board/", "ada"),
        open_example(grace, calm_site, "/board/", "grace"),
    ]
    pages[0].get_by_label("New card").fill(TEXT)
    pages[0].keyboard.press("Enter")
    for page in pages:
        eventually_on(page, lambda page=page: column(page, "todo")[-1:] == [TEXT])  # type: ignore[misc]
        assert page.locator("#board b").count() == 0
    expect(pages[0].get_by_label("New card")).to_have_value("")
    move(pages[1], TEXT, "Done")
    for page in pages:
        eventually_on(page, lambda page=page: column(page, "done")[-1:] == [TEXT])  # type: ignore[misc]
        assert TEXT not in column(page, "todo")
    assert ada.hosts == {calm_site.url.removeprefix("http://")}


def test_a_person_without_a_mouse_moves_a_card_back_and_forth(calm_site: Site, visit: Visit) -> None:
    page = open_example(visit(), calm_site, "/board/", "ada")
    button = page.get_by_role("button", name="Move “Order silk ribbon” to Doing")
    button.focus()
    page.keyboard.press("Enter")
    expect(button).to_have_count(0)
    back = page.get_by_role("button", name="Move “Order silk ribbon” to To do")
    back.focus()
    page.keyboard.press("Space")
    expect(button).to_be_visible()


def test_the_focus_stays_when_somebody_else_moves_a_card(calm_site: Site, visit: Visit) -> None:
    ada = open_example(visit(), calm_site, "/board/", "ada")
    grace = open_example(visit(), calm_site, "/board/", "grace")
    ada.get_by_role("button", name="Move “Oil the bearings of the mill” to Doing").focus()
    move(grace, "Tape the moth into the logbook", "Doing")
    eventually_on(ada, lambda: "Tape the moth into the logbook" in column(ada, "doing"))
    focused = ada.evaluate("document.activeElement.getAttribute('aria-label')")
    assert focused == "Move “Oil the bearings of the mill” to Doing"


def test_what_is_wrong_with_a_card_stands_below_the_form(calm_site: Site, visit: Visit) -> None:
    page = open_example(visit(), calm_site, "/board/", "ada")
    page.get_by_label("New card").fill("   ")
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_role("alert")).to_have_text(re.compile("at most 80 characters"))


def test_a_page_misses_nothing_while_the_server_restarts(site: Site, visit: Visit) -> None:
    visitor = visit()
    page = open_example(visitor, site, "/board/", "ada")
    visitor.expect_network_errors()
    visitor.expect_errors("[object Event]")  # htmx logs the event of a lost connection
    site.stop()
    expect(page.locator("#state")).to_have_text("Waiting to reconnect…")
    site.start()
    other = open_example(visit(), site, "/board/", "grace")
    move(other, "Order silk ribbon", "Done")
    expect(page.locator("#state")).to_have_text("Live, resumed")
    eventually_on(page, lambda: "Order silk ribbon" in column(page, "done"))


def test_signing_out_in_another_tab_ends_the_page(calm_site: Site, visit: Visit) -> None:
    visitor = visit()
    visitor.expect_errors("[object Event]", "Failed to load resource", "EventSource's response has")
    page = open_example(visitor, calm_site, "/board/", "ada")
    other = visitor.another_tab()
    other.goto(f"{calm_site.url}/board/")
    other.get_by_role("button", name="Sign out").click()
    expect(page).to_have_url(re.compile("/signin"))
