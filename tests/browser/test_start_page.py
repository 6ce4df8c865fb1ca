"""The example's start page, and what all pages of the example share: their look at every width and colour."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from example_app import PAGES

from .conftest import Site, Visit, assert_prompt

WIDTHS = (390, 1280, 1920)


@pytest.fixture(scope="module")
def lively_site(calm_site: Site) -> Iterator[Site]:
    """The example app with its ticker."""
    with calm_site.ticker():
        yield calm_site


def tile(name: str) -> str:
    return f"[data-tile={name}]"


def test_pictures_move_in_the_first_second_without_signing_in(lively_site: Site, visit: Visit) -> None:
    visitor = visit()
    page = visitor.page
    page.goto(lively_site.url)
    for name in ("live", "assistant", "dashboard", "debug"):
        picture = page.locator(tile(name))
        expect(picture).not_to_be_empty()
        expect(picture).not_to_have_text(picture.inner_text())
    expect(page.locator("#quiet")).to_be_hidden()
    assert visitor.hosts == {lively_site.url.removeprefix("http://")}
    assert_prompt(page)


def test_one_click_signs_in(lively_site: Site, visit: Visit) -> None:
    page = visit().page
    page.goto(lively_site.url)
    page.get_by_role("button", name="Sign in as Ada").click()
    expect(page.locator(".who .name")).to_have_text("Ada")
    expect(page.locator("#state")).to_have_text("Live")
    page.locator(".tile", has=page.locator(tile("debug"))).click()
    expect(page.locator("#connected")).to_have_text("yes")


def test_the_command_of_the_page_is_copied_whole(lively_site: Site, visit: Visit) -> None:
    page = visit().page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(f"{lively_site.url}/live/")
    page.get_by_role("button", name="Copy the command").click()
    expect(page.locator("#copied")).to_have_text("Copied.")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == page.locator("#command").inner_text()


def test_every_page_fits_every_width_and_is_easy_to_read(lively_site: Site, visit: Visit) -> None:
    visitor = visit()
    page = visitor.sign_in(lively_site.url, "ada")
    page.emulate_media(reduced_motion="reduce")
    for name in [page.name for page in PAGES.values()]:
        page.goto(f"{lively_site.url}/{name}/")
        expect(page.locator("#state")).to_have_text("Live")
        look_at(page, name)
    page.goto(f"{lively_site.url}/nowhere")
    look_at(page, "404")
    visitor.expect_errors("404 (NOT FOUND)")


def look_at(page: Page, name: str) -> None:
    """Passes if nothing scrolls sideways at any width, and if all texts contrast with what is behind them."""
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 860})
        wide = page.evaluate(TOO_WIDE)
        assert wide == [], f"{name} at {width} pixels"
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(PALE) == [], f"{name} in the dark"
    page.emulate_media(color_scheme="light")
    assert page.evaluate(PALE) == [], name
    assert page.evaluate("document.getAnimations().length") == 0, name
    if name != "404":
        free = page.evaluate("innerWidth - document.querySelector('.code').getBoundingClientRect().right")
        assert free < 60, f"{name} leaves {free} pixels of a wide screen empty"


#: Returns the elements that scroll sideways, and the window if it does. The navigation of a phone may.
TOO_WIDE = """() => [...document.querySelectorAll("html, main *, aside *")]
  .filter((element) => {
    const scrolls = element.localName === "html" || getComputedStyle(element).overflowX !== "visible";
    const hides = element.matches(".unseen, .stage, .stage *");
    return scrolls && !hides && element.scrollWidth > element.clientWidth + 1;
  })
  .map(({ localName, id, className }) => `${localName}#${id}.${className}`)"""

#: Returns the texts whose contrast is less than 4.5 (WCAG 2.2, 1.4.3). Disabled buttons may be pale.
PALE = """() => {
  const channels = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => {
    const [r, g, b] = channels(color).map((part) => part / 255)
      .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    const { backgroundColor } = getComputedStyle(element);
    return (channels(backgroundColor)[3] ?? 1) > 0 ? backgroundColor : behind(element.parentElement);
  };
  const pale = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || element.matches(":disabled, option") || !element.checkVisibility()) continue;
    const both = [light(getComputedStyle(element).color), light(behind(element))];
    const contrast = (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
    if (contrast < 4.5) pale.push(`${element.localName}.${element.className} ${contrast.toFixed(2)}`);
  }
  return pale;
}"""
