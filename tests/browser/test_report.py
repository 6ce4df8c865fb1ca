"""A page reports how its connections went when the user leaves it."""

from __future__ import annotations

from pathlib import Path

import httpx
from playwright.sync_api import expect

from tests.support.deadline import eventually
from tests.support.processes import gunicorn
from tests.support.scrape import scrape

from .conftest import Visit


def test_a_page_reports_when_the_user_leaves_it(visit: Visit, valkey_url: str, log: Path) -> None:
    env = {"SSE_PUSH_BROKER_URL": valkey_url, "SSE_PUSH_PREFIX": "report"}
    with gunicorn("tests.apps.monitored:app", env=env, log=log) as server, httpx.Client() as http:
        page = visit().page
        page.goto(server.url)
        expect(page).to_have_title("open")
        page.goto("about:blank")

        def reported() -> float:
            return scrape(http, f"{server.url}/stream").get_value("client_reports_total", "opened")

        assert eventually(reported, 40) == 1
