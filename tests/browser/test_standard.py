"""The cases of the web-platform-tests for EventSource with both transports, in pages and workers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, cast

import pytest
from playwright.sync_api import Browser, Page

from tests.support.processes import ROOT

from .conftest import PATIENCE, eventually_on
from .standard import connection_cases, format_cases, id_cases
from .standard.case import Case
from .standard.server import Played, orders, playing

TABLES = [
    *(format_cases.LINES, format_cases.ENCODING, format_cases.FIELDS, format_cases.TYPES),
    *(
        id_cases.IDS,
        id_cases.RETRIES,
        connection_cases.STATUSES,
        connection_cases.MEDIA_TYPES,
    ),
    *(connection_cases.REDIRECTS, connection_cases.ORIGINS, connection_cases.REQUESTS),
    connection_cases.SCHEMES,
]
CASES = {case.name: case for table in TABLES for case in table}

#: Plays the cases in a page, and in the two kinds of workers.
PLACES = {
    "page": "async (orders) => (await import('/play.js')).playAll(orders)",
    "worker": """(orders) => new Promise((resolve, reject) => {
      const worker = new Worker("/play.js", { type: "module" });
      worker.onerror = reject;
      worker.onmessage = ({ data }) => resolve(data);
      worker.postMessage(orders);
    })""",
    "shared worker": """(orders) => new Promise((resolve, reject) => {
      const worker = new SharedWorker("/play.js", { type: "module" });
      worker.onerror = reject;
      worker.port.onmessage = ({ data }) => resolve(data);
      worker.port.postMessage(orders);
    })""",
}


@pytest.fixture(scope="module")
def played() -> Iterator[Played]:
    with playing(CASES) as played:
        yield played


@pytest.fixture(scope="module")
def page(chromium: Browser, played: Played) -> Iterator[Page]:
    context = chromium.new_context()
    page = context.new_page()
    page.goto(played.origins[0].url)
    yield page
    context.close()


@pytest.fixture(scope="module", params=["native", "fetch"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=PLACES)
def reported(
    request: pytest.FixtureRequest, page: Page, played: Played, transport: str
) -> dict[str, list[Any]]:
    """Plays all cases of a transport in one place; returns the reports by the name of the case."""
    found = page.evaluate(PLACES[request.param], json.loads(orders(CASES, played, transport)))
    return {run.rpartition("#")[0]: reports for run, reports in cast("dict[str, list[Any]]", found).items()}


@pytest.mark.parametrize("case", CASES.values(), ids=lambda case: case.name)
def test_a_case(case: Case, transport: str, reported: dict[str, list[Any]]) -> None:
    if transport in case.transports:
        assert reported[case.name] == list(case.reports)


def test_a_relative_address_begins_at_the_base_of_the_page(page: Page, played: Played) -> None:
    run = "the address may be relative#base"
    page.goto(f"{played.origins[0].url}/based")
    page.evaluate(UNDER, run)
    eventually_on(page, lambda: run in played.seen)
    page.evaluate("client.close()")
    assert {seen.request.path for seen in played.seen[run]} == {"/play/under"}


UNDER = """async (run) => {
  const { PushClient } = await import("/client/push-client.js");
  window.client = new PushClient(`under?run=${encodeURIComponent(run)}`, { tabs: false });
}"""


def test_the_server_sees_that_a_client_was_closed(played: Played, reported: dict[str, list[Any]]) -> None:
    assert reported["close in a handler"]
    for run in [run for run in played.seen if run.startswith("close in a handler#")]:
        (seen,) = played.seen[run]
        assert seen.left.wait(PATIENCE / 1000)


def test_the_documentation_names_what_differs_on_purpose() -> None:
    text = (ROOT / "docs" / "browser.md").read_text("utf-8")
    (table,) = re.findall(
        r"^\| \| the standard \| PushClient \|\n\|[-|]+\|\n((?:\|.*\n)+)", text, re.MULTILINE
    )
    rows = [line.split("|")[1].strip() for line in table.splitlines()]
    assert sorted(rows) == sorted({case.differs for case in CASES.values() if case.differs})
