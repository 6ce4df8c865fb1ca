"""A page reports how its connections went, and how long events took, when the user leaves it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import httpx
from playwright.sync_api import expect

from flask_sse_push import MessageAnnouncer
from flask_sse_push.protocol import cursor
from tests.support.deadline import eventually
from tests.support.processes import gunicorn
from tests.support.proxy import Proxy
from tests.support.scrape import Samples, scrape

from .conftest import Visit

#: By how many seconds a reported time may differ from the truth.
PRECISION = 0.005
#: Counts how often the page has looked for an event to measure. It does so every 1000 ms.
COUNT_LOOKS = """
window.looks = 0;
const repeat = setInterval;
window.setInterval = (look, ms) => repeat(() => { look(); looks += ms === 1000; }, ms);
"""
#: How long the proxy holds each event back, in seconds.
HELD = 0.1


def test_a_page_reports_its_connections_and_how_long_events_took(
    visit: Visit, valkey_url: str, log: Path
) -> None:
    env = {"SSE_PUSH_BROKER_URL": valkey_url, "SSE_PUSH_PREFIX": "report"}
    with (
        gunicorn("tests.apps.monitored:app", env=env, log=log) as server,
        httpx.Client() as http,
        Proxy(server.port) as proxy,
    ):
        scrape(http, f"{server.url}/stream")  # from now on, the server measures
        page = visit().page
        page.add_init_script(COUNT_LOOKS)
        page.goto(f"http://127.0.0.1:{proxy.port}")
        expect(page).to_have_title("open")
        proxy.replies.delay = HELD
        announcer = MessageAnnouncer.from_url(valkey_url, SSE_PUSH_PREFIX="report")
        ids = []
        for number in range(2):
            ids.append(announcer.publish(number, channel="a"))
            page.wait_for_function(f"handled['{ids[-1]}']")
            looks = page.evaluate("looks")
            page.wait_for_function(f"looks > {looks}")  # now the page has measured the event
        announcer.close()
        handled = page.evaluate("handled")
        truth = sum(handled[id] / 1000 - stored_at(id) for id in ids)
        assert truth >= 2 * HELD
        proxy.replies.delay = 0.0
        page.goto("about:blank")

        def reported() -> Samples | None:
            samples = scrape(http, f"{server.url}/stream")
            return samples if samples.get_value("client_reports_total", "opened") else None

        samples = eventually(reported, 40) or Samples()
        assert samples.get_value("client_reports_total", "opened") == 1
        assert samples.get_value("browser_latency_seconds_count") == 2
        assert abs(samples.get_value("browser_latency_seconds_sum") - truth) <= 2 * PRECISION


def test_one_trace_goes_from_the_view_through_the_broker_and_a_worker_to_the_page(
    visit: Visit, valkey_url: str, log: Path, tmp_path: Path
) -> None:
    file = tmp_path / "spans"
    file.touch()
    env = {"SSE_PUSH_BROKER_URL": valkey_url, "SSE_PUSH_PREFIX": "traced", "SPANS": str(file)}
    with gunicorn("tests.apps.traced:app", env=env, log=log) as server, httpx.Client() as http:
        page = visit().page
        page.goto(server.url)
        expect(page).to_have_title("open")
        http.post(f"{server.url}/publish/hello")
        expect(page).to_have_title("hello")

        def spans() -> dict[str, dict[str, float]] | None:
            found = {span["name"]: span for span in map(json.loads, file.read_text().splitlines())}
            return found if len(found) == 4 else None

        found = eventually(spans, 40) or {}
        page.goto("about:blank")  # the page must not miss its server
    view, broker = found["view"], found["sse publish"]
    worker, browser = found["sse deliver"], found["sse handle"]
    assert {span["trace"] for span in found.values()} == {view["trace"]}
    assert broker["parent"] == view["id"]
    assert worker["parent"] == browser["parent"] == broker["id"]
    assert view["start"] <= broker["start"] <= worker["start"] + PRECISION <= worker["end"] + PRECISION
    assert abs(browser["start"] - worker["start"]) <= PRECISION, "both begin at the broker's time"
    assert browser["start"] <= browser["end"]


def stored_at(id: str) -> float:
    """The broker's time of an event, which is the time of this machine: it has one clock."""
    found = cursor.parse(id)
    assert found is not None
    assert abs(time.time() - found.id / 1e6) < 3600
    return found.id / 1e6
