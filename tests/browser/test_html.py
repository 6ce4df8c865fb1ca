"""The pages of docs/html.md show each fragment once, with the real libraries, in Chromium and in Firefox."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import NamedTuple

import pytest
import redis
from playwright.sync_api import Browser

from tests.support.pages import blocks
from tests.support.servers import Server

from .html_figures import FRAGMENTS, Pages, Result, Site, open_pages, run, wait_for, wait_for_number
from .pages import BROWSERS

#: What a user writes into the form of a page.
ORDER = "<b> & 'tea'"
PAGES = [(browser, library) for browser in BROWSERS for library in FRAGMENTS]
#: The libraries of docs/html.md.
LIBRARIES = ("htmx2", "htmx4", "turbo", "datastar")


class Shown(NamedTuple):
    """All pages, after they were hidden and the server was restarted."""

    site: Site
    pages: Pages
    results: dict[tuple[str, str], Result]
    opened: list[tuple[str, str, str]]  # the requests for streams after the restart
    broker: Server


@pytest.fixture(scope="module")
def shown(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    folder = tmp_path_factory.mktemp("html")
    with contextlib.ExitStack() as running:
        broker = Server(folder / "valkey").start()
        running.callback(broker.close)
        site = Site(broker.url, folder)
        running.callback(site.close)
        pages = running.enter_context(open_pages(chromium))
        results = run(site, pages, hides=3, restarts=1)
        opened = [(name, cursor, header) for name, cursor, header in json.loads(site.get("/opened"))]
        yield Shown(site, pages, results, opened, broker)
    assert "Traceback" not in site.log.read_text()


@pytest.mark.parametrize("code", blocks("docs/html.md", "python"), ids=LIBRARIES)
def test_each_app_is_short(code: str) -> None:
    _, page, _ = code.split('"""')
    html = len(page.strip().splitlines())
    assert html <= 15
    assert len(code.splitlines()) - html <= 25


@pytest.mark.parametrize(("browser", "library"), PAGES)
def test_each_page_shows_each_fragment_once(shown: Shown, browser: str, library: str) -> None:
    result = shown.results[browser, library]
    assert (result.lost, result.doubled) == (0, 0)
    # Turbo waits for the next frame to change a visible page, but not to change a hidden one.
    assert result.in_order or library == "turbo"
    assert min(result.waits) < 0.5


@pytest.mark.parametrize("library", FRAGMENTS)
def test_after_a_reconnect_the_newest_cursor_counts_and_not_that_of_the_page(
    shown: Shown, library: str
) -> None:
    requests = [(cursor, header) for name, cursor, header in shown.opened if name == library]
    assert len(requests) >= len(BROWSERS)
    if library == "push":  # puts its cursor into the address
        assert not any(header for _, header in requests)
    else:
        assert all(header and header != cursor for cursor, header in requests)


@pytest.mark.parametrize("library", LIBRARIES)
def test_an_order_from_the_form_appears_in_both_browsers(shown: Shown, library: str) -> None:
    here, there = (shown.pages[browser, library] for browser in BROWSERS)
    here.evaluate(
        f"document.querySelector('input').value = {json.dumps(ORDER)};"
        "document.querySelector('form').requestSubmit()"
    )
    for page in (here, there):
        wait_for(page, f"numbers().at(-1) === {json.dumps(ORDER)}")


def test_when_events_are_lost_each_page_loads_its_state_again(shown: Shown) -> None:
    with redis.Redis.from_url(shown.broker.url) as client:
        client.flushall()
    first = shown.site.publish()
    pages = {name: page for name, page in shown.pages.items() if name[1] in LIBRARIES}
    for page in pages.values():
        wait_for(page, f"numbers()[0] === {json.dumps(ORDER)}")
    number = shown.site.publish()
    wait_for_number(pages, number)
    for page in pages.values():
        assert page.evaluate("numbers()") in ([ORDER, number], [ORDER, first, number])
