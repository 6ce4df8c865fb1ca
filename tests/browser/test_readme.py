"""The README's two-line integration, taken from the README: its app, its command, its page."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import httpx
from playwright.sync_api import Page, Route

from tests.support.processes import ROOT, gunicorn

from .conftest import Visit, eventually_on

README = (ROOT / "README.md").read_text("utf-8")
#: The only thing that is not as it stands there.
BROKER = "redis://localhost:6379/0"


def block(language: str, having: str) -> str:
    """The first code block in a language that has a text."""
    blocks: list[str] = re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    return next(text for text in blocks if having in text)


def serve(page: Page, url: str, html: str) -> None:
    """Has the browser see a page of the app's address that the app itself does not have."""

    def answer(route: Route) -> None:
        route.fulfill(body=f'<!doctype html><link rel="icon" href="data:,">{html}', content_type="text/html")

    page.route(url, answer)


def test_the_two_lines_bring_an_event_to_the_page(
    valkey_url: str, tmp_path: Path, log: Path, visit: Visit
) -> None:
    app = block("python", "register_blueprint(sse")
    assert app.count(BROKER) == 1
    (tmp_path / "app.py").write_text(app.replace(BROKER, valkey_url), "utf-8")
    program, _, kind, _, workers, name = shlex.split(block("console", "gunicorn").removeprefix("$ "))
    assert program == "gunicorn"
    with gunicorn(name, "--chdir", str(tmp_path), worker_class=kind, workers=int(workers), log=log) as server:
        page = visit().page
        told: list[str] = []
        page.on("console", lambda message: told.append(message.text))
        serve(page, f"{server.url}/", block("html", "new PushClient"))
        with page.expect_response(lambda response: response.url.endswith("/stream")) as opened:
            page.goto(f"{server.url}/")
        assert opened.value.status == 200
        answer = httpx.post(f"{server.url}/hello", trust_env=False)
        assert (answer.status_code, answer.text) == (200, "sent")
        eventually_on(page, lambda: "Hello!" in told)
        page.goto("about:blank")
