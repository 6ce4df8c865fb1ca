"""The app of docs/database.md runs with the commands of the page, and shows the same in two windows."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import expect

from tests.support.flask_process import run_flask
from tests.support.pages import block, commands, served

from .conftest import Visit

PAGE = "docs/database.md"


def test_the_app_of_the_page_shows_each_commit_in_two_windows(
    tmp_path: Path, log: Path, visit: Visit, empty_valkey: str
) -> None:
    code = block(PAGE, "python", "create-tables").replace("embedded://", empty_valkey)
    (tmp_path / "shop.py").write_text(code, "utf-8")
    create, serve = [each.text for each in commands(PAGE) if "shop" in each.text]
    assert run_flask(*create.split()[1:], env={}, folder=tmp_path).returncode == 0
    with served(serve, tmp_path, log) as url:
        first, second = visit().page, visit().page
        for page in (first, second):
            with page.expect_response(lambda response: "/stream?" in response.url):
                page.goto(f"{url}/")
        first.get_by_role("textbox").fill("a <b>lamp</b>")
        first.get_by_role("button", name="Order").click()
        ship = second.get_by_role("button", name="Ship")
        expect(second.locator("#order-1")).to_contain_text("a <b>lamp</b>")
        ship.click()
        for page in (first, second):
            expect(page.locator("#order-1")).to_contain_text("was shipped")
            page.goto("about:blank")
