"""The README's app runs as it stands, with both of the README's commands, and shows an event on its page."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from tests.support.pages import block, commands, served
from tests.support.processes import ROOT

from .conftest import Visit


@pytest.mark.parametrize("command", ["gunicorn -k gevent app:app", "flask run"])
def test_the_app_of_the_readme_shows_an_event_in_two_windows(
    command: str, tmp_path: Path, log: Path, visit: Visit
) -> None:
    listed = [each.text for each in commands("README.md")]
    assert command in listed or f"`{command}` works too" in (ROOT / "README.md").read_text("utf-8")
    (tmp_path / "app.py").write_text(block("README.md", "python", "register_blueprint(sse"), "utf-8")
    without = {
        key: value for key, value in os.environ.items() if not key.endswith(("REDIS_URL", "BROKER_URL"))
    }
    with served(command, tmp_path, log, without) as url:
        first, second = visit().page, visit().page
        for page in (first, second):
            with page.expect_response(lambda response: urlsplit(response.url).path == "/stream") as opened:
                page.goto(f"{url}/")
            assert opened.value.status == 200
        first.get_by_role("button").click()
        for page in (first, second):
            expect(page.locator("ul")).to_have_text("Hello!")
            page.goto("about:blank")
