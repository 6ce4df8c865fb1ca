"""After failures, the page "Live" reconnects by itself, and shows every event once, in order."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import redis
from playwright.sync_api import expect

from tests.support.deadline import eventually
from tests.support.processes import accepts

from .conftest import Counting, Site, Visit, eventually_on, open_example

#: Maximum number of events that the page shows.
SHOWN_EVENTS = 200


def test_the_page_loses_no_event_when_workers_are_killed(calm_site: Site, visit: Visit) -> None:
    visitor = visit()
    page = open_example(visitor, calm_site, "/live/", "ada")
    with Counting(calm_site.announcer, "news", every=0.2) as counting:
        eventually_on(page, lambda: len(visitor.texts()) > 5)
        for pid in calm_site.server.worker_pids():
            os.kill(pid, signal.SIGKILL)
        expect(page.locator("#reconnects")).to_have_text(re.compile("[1-9]"))
        expect(page.locator("#state")).to_have_attribute("data-state", "resumed")
    assert counting.count < SHOWN_EVENTS
    eventually_on(page, lambda: sum(text.isdigit() for text in visitor.texts()) >= counting.count)
    assert [text for text in visitor.texts() if text.isdigit()] == counting.numbers()
    visitor.expect_network_errors()


class BadGateway(BaseHTTPRequestHandler):
    """Answers like a proxy whose app has stopped."""

    def do_GET(self) -> None:
        self.send_response(502)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def bad_gateway(port: int) -> Iterator[None]:
    """Runs a server that answers every request with 502."""
    eventually(lambda: not accepts(port), 30)
    with HTTPServer(("127.0.0.1", port), BadGateway) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def test_the_page_loses_no_event_in_an_outage_with_502s(site: Site, visit: Visit) -> None:
    visitor = visit()
    page = open_example(visitor, site, "/live/", "ada")
    site.announcer.publish("before", channel="news")
    expect(page.locator("#feed .text")).to_have_text("before")
    site.stop()
    expect(page.locator("#log")).to_contain_text("said goodbye")
    with bad_gateway(site.server.port):
        expect(page.locator("#log")).to_contain_text("the server refused the stream")
        expect(page.locator("#state")).to_have_attribute("data-state", "waiting")
    site.announcer.publish("meanwhile", channel="news")
    site.start()
    expect(page.locator("#state")).to_have_attribute("data-state", "resumed", timeout=120_000)
    site.announcer.publish("after", channel="news")
    eventually_on(page, lambda: len(visitor.texts()) >= 3)
    assert visitor.texts() == ["before", "meanwhile", "after"]
    visitor.expect_network_errors()


def test_a_flush_of_the_broker_is_shown_as_a_reset(calm_site: Site, visit: Visit, valkey_url: str) -> None:
    page = open_example(visit(), calm_site, "/live/", "ada")
    calm_site.announcer.publish("before", channel="news")
    expect(page.locator("#feed .text").first).to_have_text("before")
    with redis.Redis.from_url(valkey_url) as client:
        client.flushall()
    calm_site.announcer.publish("after", channel="news")
    expect(page.locator("#state")).to_have_attribute("data-state", "reset")
    expect(page.locator("#state")).to_have_text("Live, history lost")
    expect(page.locator("#log")).to_contain_text("reset (epoch)")
    calm_site.announcer.publish("and on", channel="news")
    expect(page.locator("#feed .text").first).to_have_text("and on")


def test_after_the_session_the_page_keeps_its_public_channels(calm_site: Site, visit: Visit) -> None:
    visitor = visit()
    page = open_example(visitor, calm_site, "/live/", "ada")
    visitor.sign_out_silently()
    os.kill(calm_site.server.process.pid, signal.SIGHUP)
    expect(page.locator(".intro code")).to_have_text(["news", "ticks"])
    expect(page.locator("#state")).to_have_text("Live")
    visitor.expect_network_errors()
