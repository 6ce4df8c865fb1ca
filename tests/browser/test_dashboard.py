"""The example's page "Dashboard": its charts are full at once, and then grow with new samples."""

from __future__ import annotations

import re
import time

import psutil
import pytest
from playwright.sync_api import Page, expect

from example_app.dashboard import sampler

from .conftest import Site, Visit, assert_prompt, eventually_on, open_example

PATH = "/dashboard/"


def publish_history(site: Site, count: int) -> None:
    """Publishes samples of the last `count` seconds, like the sampler's."""
    measured = sampler.Sampler().sample()
    now = round(time.time() * 1000)
    with site.announcer.batch() as batch:
        for number in range(count):
            sample = {**measured, "number": number, "at_ms": now - 1000 * (count - number)}
            batch.publish(sample, "sample", channel=sampler.CHANNEL, ttl=sampler.WINDOW)


def points(page: Page, chart: str) -> int:
    """Returns the number of points in the lines of a chart."""
    lines = page.locator(f"#{chart} .line[d]").all()
    return sum(len(re.findall("[ML]", line.get_attribute("d") or "")) for line in lines)


def test_the_charts_are_full_at_once(site: Site, visit: Visit) -> None:
    publish_history(site, 280)
    page = open_example(visit(), site, PATH, "ada")
    expect(page.locator("#samples")).to_have_text("280")
    eventually_on(
        page, lambda: [points(page, name) for name in ("cpu", "memory", "network")] == [280, 280, 560]
    )
    expect(page.locator("#cpu-from")).to_have_text("5 min ago")
    total = psutil.virtual_memory().total / 1e9
    expect(page.locator("#memory-used")).to_contain_text(f"of {total:.1f} GB")
    expect(page.locator("#cores li")).to_have_count(psutil.cpu_count() or 1)
    assert_prompt(page)


def test_new_samples_move_the_charts_and_a_gap_breaks_the_line(site: Site, visit: Visit) -> None:
    old = {**sampler.Sampler().sample(), "at_ms": round(time.time() * 1000) - 60_000}
    site.announcer.publish(old, "sample", channel=sampler.CHANNEL)
    visitor = visit()
    page = open_example(visitor, site, PATH, "grace")
    expect(page.locator("#samples")).to_have_text("1")
    with site.ticker():
        eventually_on(page, lambda: int(page.locator("#samples").inner_text()) > 3, seconds=60)
    line = page.locator("#cpu .line")
    eventually_on(page, lambda: (line.get_attribute("d") or "").count("M") == 2)
    expect(page.locator("#cpu-now")).to_have_text(re.compile(r"^\d+ %$"))
    assert visitor.hosts == {site.url.removeprefix("http://")}


def test_visitors_do_not_get_the_machines_figures(calm_site: Site, visit: Visit) -> None:
    assert visit().page.request.get(f"{calm_site.url}/stream?channels={sampler.CHANNEL}").status == 401


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits(calm_site: Site, visit: Visit, width: int) -> None:
    publish_history(calm_site, 30)
    page = open_example(visit(width, 844), calm_site, PATH, "grace")
    expect(page.locator("#samples")).not_to_have_text("0")
    assert page.evaluate("document.documentElement.scrollWidth") == width
