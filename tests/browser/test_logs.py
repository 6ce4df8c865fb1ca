"""The example's page "Logs": the lines of a real file, also after rotation, with filters and a pause."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from .conftest import Site, Visit, assert_prompt, open_example

PATH = "/logs/"

greetings = itertools.count()


def line(page: Page, text: str) -> Locator:
    return page.locator("#lines li").filter(has_text=text)


def write(page: Page, level: str, text: str) -> None:
    page.locator("#write [name=level]").select_option(level)
    page.get_by_label("Text").fill(text)
    page.keyboard.press("Enter")
    expect(page.get_by_label("Text")).to_have_value("")


@contextmanager
def viewer(site: Site, visit: Visit, width: int = 1280) -> Iterator[Page]:
    """Opens the page while the ticker follows the log."""
    with site.ticker():
        page = open_example(visit(width, 844), site, PATH, "ada")
        greeting = f"hello {next(greetings)}!"
        write(page, "INFO", greeting)
        expect(line(page, greeting)).to_be_visible(timeout=60_000)  # the ticker takes a while to start
        yield page


def test_lines_of_the_workers_have_level_and_source(calm_site: Site, visit: Visit) -> None:
    with viewer(calm_site, visit) as page:
        write(page, "ERROR", "the <b>disk</b> is full")
        found = line(page, "Ada says: the <b>disk</b> is full")
        expect(found).to_have_attribute("data-level", "ERROR")
        expect(found.locator(".source")).to_have_text("example_app.visitor")
        expect(line(page, "opened").first).to_have_attribute("data-level", "INFO")  # about this page's stream
        assert page.locator("#lines b").count() == 0
        page.reload()
        expect(line(page, "Ada says: the <b>disk</b> is full")).to_have_count(1)
        assert_prompt(page)


def test_each_line_appears_once_after_rotation_and_truncation(site: Site, visit: Visit) -> None:
    file = Path(site.env["EXAMPLE_LOG"])
    with viewer(site, visit) as page:
        write(page, "INFO", "number 1")
        expect(line(page, "number 1")).to_be_visible()
        file.rename(f"{file}.old")
        write(page, "INFO", "number 2")
        expect(line(page, "number 2")).to_be_visible()
        file.write_text("")
        write(page, "INFO", "number 3")
        expect(line(page, "number 3")).to_be_visible()
    with viewer(site, visit) as page:  # the ticker starts again
        write(page, "INFO", "number 4")
        expect(line(page, "number 4")).to_be_visible()
        texts = page.locator("#lines li").filter(has_text="number").locator(".text").all_text_contents()
        assert texts == [f"Ada says: number {number}" for number in range(1, 5)]


def test_level_and_search_filter_old_and_new_lines(calm_site: Site, visit: Visit) -> None:
    with viewer(calm_site, visit) as page:
        for level in ("DEBUG", "WARNING"):
            write(page, level, f"sifted at {level}")
            expect(line(page, f"sifted at {level}")).to_be_visible()
        page.get_by_label("From level").select_option("WARNING")
        expect(line(page, "sifted at DEBUG")).to_be_hidden()
        expect(line(page, "sifted at WARNING")).to_be_visible()
        page.get_by_label("Search").fill("NEEDLE")
        expect(line(page, "sifted at WARNING")).to_be_hidden()
        write(page, "INFO", "a needle, but too low")
        write(page, "CRITICAL", "a needle")
        expect(page.locator("#lines li:not([hidden])")).to_have_count(1)
        expect(page.locator("#shown")).to_have_text("1")
        page.get_by_label("Search").fill("")
        page.get_by_label("From level").select_option("DEBUG")
        expect(line(page, "sifted at DEBUG")).to_be_visible()


def test_a_pause_delays_lines_and_loses_none(calm_site: Site, visit: Visit) -> None:
    with viewer(calm_site, visit) as page:
        write(page, "INFO", "before the pause")
        expect(line(page, "before the pause")).to_be_visible()
        page.get_by_role("button", name="Pause").click()
        write(page, "INFO", "during the pause")
        held = page.get_by_role("button", name="Go on (")
        expect(held).to_be_visible()
        expect(line(page, "during the pause")).to_have_count(0)
        held.click()
        expect(line(page, "during the pause")).to_be_visible()
        expect(page.get_by_role("button", name="Pause")).to_have_attribute("aria-pressed", "false")


def test_the_number_of_rows_is_limited(calm_site: Site, visit: Visit) -> None:
    page = open_example(visit(), calm_site, PATH, "ada")
    for hundred in range(12):
        with calm_site.announcer.batch() as batch:
            for number in range(100):
                text = f"row {100 * hundred + number}"
                data = {"at": "", "level": "INFO", "source": "", "text": text}
                batch.publish(data, "line", channel="log", ttl=0)
    expect(line(page, "row 1199")).to_be_visible()
    expect(page.locator("#kept")).to_have_text("1000")
    assert page.locator("#lines li").count() == 1000


def test_it_is_for_admins(calm_site: Site, visit: Visit) -> None:
    grace = open_example(visit(), calm_site, "/live/", "grace")
    assert grace.get_by_role("link", name="Logs").count() == 0
    assert grace.request.get(f"{calm_site.url}{PATH}").status == 403
    assert grace.request.get(f"{calm_site.url}/stream?channels=log").status == 403
    forged = grace.request.post(f"{calm_site.url}{PATH}write", data={"level": "INFO", "text": "x"})
    assert forged.status == 403
    assert "/signin" in visit().page.request.get(f"{calm_site.url}{PATH}").url


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits(calm_site: Site, visit: Visit, width: int) -> None:
    with viewer(calm_site, visit, width) as page:
        write(page, "WARNING", f"{width}" * 60)
        expect(line(page, f"{width}{width}")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") == width
