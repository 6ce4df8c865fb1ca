"""The README's example works: the test takes its app, its command and its page from the README."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import httpx
from playwright.sync_api import Page, Route

from tests.support.processes import ROOT, gunicorn

from .conftest import Visit, eventually_on

README = (ROOT / "README.md").read_text("utf-8")
#: The broker's URL in the README, the only text that the test replaces.
BROKER = "redis://localhost:6379/0"


def block(language: str, having: str) -> str:
    """Returns the README's first code block in a language that contains a text."""
    blocks: list[str] = re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    return next(text for text in blocks if having in text)


def serve(page: Page, url: str, html: str) -> None:
    """Shows the browser a page at an address of the app, which the app itself does not serve."""

    def answer(route: Route) -> None:
        route.fulfill(body=f'<!doctype html><link rel="icon" href="data:,">{html}', content_type="text/html")

    page.route(url, answer)


def test_the_example_of_the_readme_shows_an_event_on_the_page(
    valkey_url: str, tmp_path: Path, log: Path, visit: Visit
) -> None:
    app = block("python", "register_blueprint(sse")
    assert app.count(BROKER) == 1
    (tmp_path / "app.py").write_text(app.replace(BROKER, valkey_url), "utf-8")
    program, _, kind, _, workers, name = shlex.split(block("console", "gunicorn").removeprefix("$ "))
    assert program == "gunicorn"
    with gunicorn(name, "--chdir", str(tmp_path), worker_class=kind, workers=int(workers), log=log) as server:
        page = visit().page
        logged: list[str] = []
        page.on("console", lambda message: logged.append(message.text))
        serve(page, f"{server.url}/", block("html", "new PushClient"))
        with page.expect_response(lambda response: response.url.endswith("/stream")) as opened:
            page.goto(f"{server.url}/")
        assert opened.value.status == 200
        answer = httpx.post(f"{server.url}/hello", trust_env=False)
        assert (answer.status_code, answer.text) == (200, "sent")
        eventually_on(page, lambda: "Hello!" in logged)
        page.goto("about:blank")
