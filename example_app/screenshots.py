"""Pictures of all pages for the README: `make screenshots` runs the demo, visits it in Chromium, and writes
`docs/images/<page>-<desk|phone>.png`."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from . import PAGES
from .signin import DEMO_PASSWORDS

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"
#: Pixels of a window.
SIZES = {"desk": (1120, 720), "phone": (390, 780)}
#: Few colours make small files; the pages have no more.
COLOURS = 48
#: Seconds that the demo may take to answer, and that it measures before its charts are looked at.
START, MEASURED = 30.0, 60.0
#: Milliseconds that a page may take to show what it is to show.
PATIENCE = 30_000


def main() -> None:
    """Writes all pictures; says how many bytes they are."""
    expect.set_options(timeout=PATIENCE)
    IMAGES.mkdir(exist_ok=True)
    began = time.monotonic()
    with demo() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        window = browser.new_context(viewport={"width": 1120, "height": 720}, reduced_motion="reduce")
        page = window.new_page()
        sign_in(page, url)
        time.sleep(max(0.0, began + MEASURED - time.monotonic()))
        for blueprint in PAGES.values():
            for name, (width, height) in SIZES.items():
                page.set_viewport_size({"width": width, "height": height})
                visit(page, url, blueprint.name)
                save(page.screenshot(), IMAGES / f"{blueprint.name}-{name}.png")
        browser.close()
    sizes = [path.stat().st_size for path in IMAGES.glob("*.png")]
    print(f"{len(sizes)} pictures in {IMAGES.relative_to(ROOT)}, {sum(sizes) / 1000:.0f} kB")


@contextlib.contextmanager
def demo() -> Iterator[str]:
    """Runs what `make demo` runs, on a free port; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "example_app:create_app()"]
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "PORT": str(port), "WEB_CONCURRENCY": "2"}
    )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + START
        while not answers(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("the demo did not start")
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait()


def answers(url: str) -> bool:
    """Whether a page comes from there."""
    try:
        with urllib.request.urlopen(f"{url}/signin", timeout=5):
            return True
    except urllib.error.URLError:
        return False


def sign_in(page: Page, url: str, name: str = "ada") -> None:
    """Signs in as one of the demo's users."""
    page.goto(f"{url}/signin")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(DEMO_PASSWORDS[name])
    page.keyboard.press("Enter")
    page.wait_for_url("**/live/")


def visit(page: Page, url: str, name: str) -> None:
    """Opens a page and has something happen there."""
    page.goto(f"{url}/{name}/")
    expect(page.locator("#state")).to_have_attribute("data-state", "open")
    if scene := SCENES.get(name):
        scene(page)
    page.wait_for_timeout(700)
    page.evaluate("scrollTo(0, 0)")


def save(picture: bytes, path: Path) -> None:
    """Writes a picture with few colours."""
    with Image.open(io.BytesIO(picture)) as image:
        few = image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
        few.save(path, optimize=True)


# -- what happens on the pages ------------------------------------------------------------------------------


def chat_with_a_model(page: Page) -> None:
    """Asks, and waits for most of the answer."""
    if page.locator("#talk li").count() == 0:
        page.get_by_label("Question").fill("How do your words get to me?")
        page.keyboard.press("Enter")
    expect(page.locator("#talk li[data-by=answer]")).to_contain_text("put together ten times")


def publish_news(page: Page) -> None:
    """Three events of different channels."""
    for channel, text in (
        ("news", "The loom weaves algebraic patterns."),
        ("chat", "Who is coming to tea?"),
        ("user:ada", "Note G is finished."),
    ):
        page.get_by_label("To").select_option(channel)
        page.get_by_label("Text").fill(text)
        page.keyboard.press("Enter")
        expect(page.locator("#feed .text").filter(has_text=text).first).to_be_visible()


def tell_what_happened(page: Page) -> None:
    """An event of each kind."""
    for kind, text in (
        ("comment", "The plan looks good."),
        ("deploy", "Version 2 is live."),
        ("alert", "The queue is long."),
    ):
        page.locator("[name=kind]").select_option(kind)
        page.get_by_label("What happened").fill(text)
        page.keyboard.press("Enter")
        expect(page.get_by_label("What happened")).to_have_value("")


def follow_an_order(page: Page) -> None:
    """Half of it, or what is left of it."""
    place = page.get_by_role("button", name="Place an order")
    if place.is_enabled():
        place.click()
    expect(page.locator("#progress-title")).to_have_text("Shipped")


def start_the_timer(page: Page) -> None:
    """Five minutes of it, unless it runs."""
    start = page.get_by_role("button", name="Start")
    if start.is_enabled():
        page.get_by_label("Length").select_option("300")
        start.click()
    expect(page.locator("#says")).to_have_text("Started by Ada")


def be_notified(page: Page) -> None:
    """One of each level; the last is still in the corner."""
    for level, text in (
        ("info", "Your export is ready."),
        ("warning", "The disk is 90 % full."),
        ("error", "The backup of tonight failed."),
    ):
        page.get_by_label("Level").select_option(level)
        page.get_by_label("Text").fill(text)
        page.keyboard.press("Enter")
        expect(page.locator("#inbox .notice").first).to_contain_text(text)
    while page.locator("#toasts .notice").count() > 1:
        page.locator("#toasts .notice .actions button").last.click()


def write_a_log(page: Page) -> None:
    """Lines of three levels."""
    for level, text in (
        ("DEBUG", "looking at cards"),
        ("WARNING", "a card is bent"),
        ("ERROR", "out of cards"),
    ):
        page.locator("#write [name=level]").select_option(level)
        page.get_by_label("Text").fill(text)
        page.keyboard.press("Enter")
        expect(page.locator("#lines li").filter(has_text=text).last).to_be_visible()


def watch_the_charts(page: Page) -> None:
    """As many samples as it takes to see something."""
    expect(page.locator("#samples")).not_to_have_text("0")


def look_behind(page: Page) -> None:
    """A test event, and the table of streams."""
    page.get_by_role("button", name="Send a test event").click()
    expect(page.locator("#last-type")).to_have_text("test")
    expect(page.locator("#streams tr").nth(1)).to_be_visible()


SCENES: dict[str, Callable[[Page], None]] = {
    "live": publish_news,
    "assistant": chat_with_a_model,
    "orders": follow_an_order,
    "timer": start_the_timer,
    "activity": tell_what_happened,
    "notifications": be_notified,
    "dashboard": watch_the_charts,
    "logs": write_a_log,
    "debug": look_behind,
}

if __name__ == "__main__":
    main()
