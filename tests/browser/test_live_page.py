"""The example's live page in a real browser: events move, and come back after every kind of trouble."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import redis
from playwright.sync_api import expect

from tests.support.deadline import eventually
from tests.support.processes import accepts

from .conftest import Counting, Site, Visit, eventually_on

#: More events than the page keeps would fall off its list.
SHOWN_EVENTS = 200


def test_after_signing_in_the_ticks_of_another_process_move(site: Site, visit: Visit) -> None:
    visitor = visit()
    page = visitor.sign_in(site.url, "ada")
    number = page.locator("#tick-number")
    expect(number).to_have_text("–")
    with site.ticker():
        expect(number).to_have_text("1")
        expect(number).to_have_text("3")
    assert len((page.locator("#curve polyline").get_attribute("points") or "").split()) == 3
    assert visitor.hosts == {site.url.removeprefix("http://")}


def test_what_one_publishes_by_the_form_arrives_at_the_other(site: Site, visit: Visit) -> None:
    ada, grace = visit(), visit()
    ada.sign_in(site.url, "ada")
    grace.sign_in(site.url, "grace")

    ada.page.get_by_label("To").select_option("chat")
    ada.page.get_by_label("Text").fill("Good morning, <b>Grace</b>.")
    ada.page.keyboard.press("Enter")

    expect(ada.page.locator("#published")).to_have_text("Published.")
    expect(ada.page.get_by_label("Text")).to_have_value("")
    for visitor in (ada, grace):
        item = visitor.page.locator("#feed li")
        expect(item.locator(".text")).to_have_text("Good morning, <b>Grace</b>.")
        expect(item.locator(".badge")).to_have_text("chat")
        expect(item.locator(".from")).to_have_text("Ada")
        assert item.locator("b").count() == 0


def test_a_private_event_reaches_its_user_alone(site: Site, visit: Visit) -> None:
    ada, grace = visit(), visit()
    ada.sign_in(site.url, "ada")
    grace.sign_in(site.url, "grace")

    ada.page.get_by_label("To").select_option("user:grace")
    ada.page.get_by_label("Text").fill("for you")
    ada.page.get_by_role("button", name="Publish").click()
    expect(grace.page.locator("#feed .text")).to_have_text("for you")
    site.announcer.publish("for all", channel="news")
    expect(ada.page.locator("#feed .text")).to_have_text("for all")

    assert ada.texts() == ["for all"]
    refused = ada.page.request.get(f"{site.url}/stream?channels=news,user:grace")
    assert refused.status == 403
    assert refused.json()["name"] == "PERMISSION_DENIED"


def test_what_the_command_line_publishes_arrives(site: Site, visit: Visit) -> None:
    page = visit().sign_in(site.url, "ada")
    cursor = site.run("sse", "publish", "news", '{"hello": 1}').strip()
    item = page.locator("#feed li")
    expect(item.locator(".text")).to_have_text('{"hello":1}')
    expect(item.locator(".badge")).to_have_text("message")
    expect(page.locator("#cursor")).to_have_text(cursor)


def test_a_page_opened_later_shows_what_was_published_before(site: Site, visit: Visit) -> None:
    site.announcer.publish({"from": "Cron", "text": "earlier"}, "news", channel="news")
    visitor = visit()
    visitor.sign_in(site.url, "grace")
    expect(visitor.page.locator("#feed .text")).to_have_text("earlier")


def test_the_form_says_why_an_event_was_not_published(site: Site, visit: Visit) -> None:
    visitor = visit()
    page = visitor.sign_in(site.url, "ada")
    page.locator("[name=channel] option").first.evaluate("option => { option.value = 'ticks' }")
    page.get_by_label("To").select_option("ticks")
    page.get_by_label("Text").fill("no")
    page.keyboard.press("Enter")
    expect(page.locator("#published")).to_have_text("publishing to 'ticks' is not allowed")
    expect(page.get_by_label("Text")).to_have_value("no")
    visitor.forgive_network_errors()


def test_killed_workers_cost_the_page_nothing(site: Site, visit: Visit) -> None:
    visitor = visit()
    page = visitor.sign_in(site.url, "ada")
    with Counting(site.announcer, "news", every=0.05) as counting:
        for _ in range(2):
            eventually_on(page, lambda: len(visitor.texts()) >= counting.count > 10)
            seen = int(page.locator("#reconnects").inner_text())
            for pid in site.server.worker_pids():
                os.kill(pid, signal.SIGKILL)
            expect(page.locator("#reconnects")).not_to_have_text(str(seen))
            expect(page.locator("#state")).to_have_attribute("data-state", "resumed")
    assert counting.count < SHOWN_EVENTS
    eventually_on(page, lambda: len(visitor.texts()) >= counting.count)
    assert visitor.texts() == counting.numbers()
    visitor.forgive_network_errors()


class BadGateway(BaseHTTPRequestHandler):
    """Answers as a proxy does whose app is gone."""

    def do_GET(self) -> None:
        self.send_response(502)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def bad_gateway(port: int) -> Iterator[None]:
    """A server that answers everything with 502."""
    eventually(lambda: not accepts(port))
    with HTTPServer(("127.0.0.1", port), BadGateway) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def test_an_outage_with_502s_costs_the_page_nothing(site: Site, visit: Visit) -> None:
    visitor = visit()
    page = visitor.sign_in(site.url, "ada")
    site.announcer.publish("before", channel="news")
    expect(page.locator("#feed .text")).to_have_text("before")
    site.stop()
    expect(page.locator("#state")).to_have_attribute("data-state", "waiting")
    expect(page.locator("#log")).to_contain_text("said goodbye")
    with bad_gateway(site.server.port):
        expect(page.locator("#log")).to_contain_text("the server refused the stream")
    site.announcer.publish("meanwhile", channel="news")
    site.start()
    expect(page.locator("#state")).to_have_attribute("data-state", "resumed", timeout=30_000)
    site.announcer.publish("after", channel="news")
    eventually_on(page, lambda: len(visitor.texts()) == 3)
    assert visitor.texts() == ["before", "meanwhile", "after"]
    visitor.forgive_network_errors()


def test_a_flush_of_the_broker_is_shown_as_a_reset(site: Site, visit: Visit, valkey_url: str) -> None:
    visitor = visit()
    page = visitor.sign_in(site.url, "ada")
    site.announcer.publish("before", channel="news")
    expect(page.locator("#feed .text")).to_have_text("before")
    with redis.Redis.from_url(valkey_url) as client:
        client.flushall()
    site.announcer.publish("after", channel="news")
    expect(page.locator("#state")).to_have_attribute("data-state", "reset")
    expect(page.locator("#state")).to_have_text("Live, history lost")
    expect(page.locator("#log")).to_contain_text("reset (epoch)")
    site.announcer.publish("and on", channel="news")
    expect(page.locator("#feed .text").first).to_have_text("and on")


def test_a_page_whose_session_ended_leads_to_the_sign_in(site: Site, visit: Visit) -> None:
    visitor = visit()
    page = visitor.sign_in(site.url, "ada")
    visitor.sign_out_silently()
    os.kill(site.server.process.pid, signal.SIGHUP)
    page.wait_for_url("**/signin?*")
    visitor.forgive_network_errors()


def test_signing_out_ends_the_session(site: Site, visit: Visit) -> None:
    visitor = visit()
    page = visitor.sign_in(site.url, "ada")
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/signin")
    page.goto(f"{site.url}/live/")
    page.wait_for_url("**/signin?*")
    page.get_by_label("Name").fill("ada")
    page.get_by_label("Password").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("That name and password do not go together.")


@pytest.mark.parametrize(("name", "width", "height"), [("phone", 390, 844), ("desktop", 1280, 860)])
def test_the_page_fits(
    site: Site, visit: Visit, tmp_path: Path, name: str, width: int, height: int
) -> None:
    visitor = visit(width, height)
    visitor.page.goto(site.url)
    visitor.page.screenshot(path=tmp_path / f"{name}-signin.png", full_page=True)
    page = visitor.sign_in(site.url, "grace")
    texts = ["The loom weaves flowers and leaves.", "long" * 60, "ありがとう 👋"]
    for channel, text in zip(("news", "chat", "user:grace"), texts, strict=True):
        type = channel.partition(":")[0]
        site.announcer.publish({"from": "Ada", "text": text}, "private" if type == "user" else type, channel=channel)
    with site.ticker():
        expect(page.locator("#tick-number")).to_have_text("3")
    eventually_on(page, lambda: visitor.texts() == texts)
    page.screenshot(path=tmp_path / f"{name}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") == width
