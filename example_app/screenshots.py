"""Takes screenshots of all pages for the README.

`make screenshots` runs the demo, opens its pages in Chromium, and writes
`docs/images/<page>-<desk|phone>.png`.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from . import PAGES
from .scenes import SCENES, find_out_why, open_page, prepare
from .signin import DEMO_PASSWORDS

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"
#: Width and height of the window, in pixels.
SIZES = {"desk": (1120, 720), "phone": (390, 780)}
#: Number of colours in a picture. Few colours make small files, and the pages use no more.
COLOURS = 48
#: Seconds that the demo may take to start, and seconds that it measures before the first screenshot.
START, MEASURED = 30.0, 60.0
#: Milliseconds that a page may take to show the expected content.
PATIENCE = 30_000


def main() -> None:
    """Writes all pictures, and prints their total size."""
    expect.set_options(timeout=PATIENCE)
    IMAGES.mkdir(exist_ok=True)
    began = time.monotonic()
    with demo() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        window = browser.new_context(viewport={"width": 1120, "height": 720}, reduced_motion="reduce")
        page, other = window.new_page(), browser.new_context().new_page()
        sign_in(page, url)
        sign_in(other, url, "grace")
        prepare(other, url)
        time.sleep(max(0.0, began + MEASURED - time.monotonic()))
        for blueprint in PAGES.values():
            for name, (width, height) in SIZES.items():
                page.set_viewport_size({"width": width, "height": height})
                visit(page, url, blueprint.name)
                save(page.screenshot(), IMAGES / f"{blueprint.name}-{name}.png")
        for name, (width, height) in SIZES.items():
            page.set_viewport_size({"width": width, "height": height})
            find_out_why(page, url)
            save(page.screenshot(), IMAGES / f"admin-{name}.png")
        browser.close()
    sizes = [path.stat().st_size for path in IMAGES.glob("*.png")]
    print(f"{len(sizes)} pictures in {IMAGES.relative_to(ROOT)}, {sum(sizes) / 1000:.0f} kB")


@contextlib.contextmanager
def demo() -> Iterator[str]:
    """Runs the server of `make demo` on a free port, and yields its address."""
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
    """Whether the server at this address answers with a page."""
    try:
        with urllib.request.urlopen(f"{url}/signin", timeout=5):
            return True
    except OSError:  # also a server that does not answer in time
        return False


def sign_in(page: Page, url: str, name: str = "ada") -> None:
    """Signs in as one of the demo's users."""
    page.goto(f"{url}/signin")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(DEMO_PASSWORDS[name])
    page.keyboard.press("Enter")
    page.wait_for_url("**/start/")


def visit(page: Page, url: str, name: str) -> None:
    """Opens a page and plays its scene."""
    open_page(page, url, name)
    if scene := SCENES.get(name):
        scene(page)
    page.wait_for_timeout(700)
    page.evaluate("scrollTo(0, 0)")


def save(picture: bytes, path: Path) -> None:
    """Writes a picture with few colours."""
    with Image.open(io.BytesIO(picture)) as image:
        few = image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
        few.save(path, optimize=True)


if __name__ == "__main__":
    main()
