"""The admin page: its views show true data and stay live, its writes work, and it is safe and easy to use."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from typing import Any, cast

import pytest
import redis
from playwright.sync_api import Browser, Locator, Page, expect

from flask_sse_push import MessageAnnouncer
from tests.support.stream import Stream

from .conftest import Site, Visit, Visitor, eventually_on
from .test_start_page import PALE, TOO_WIDE

#: Text from a client that would run as code if a page took it for markup.
HOSTILE = "<img src=x onerror=hacked=1>"
#: All views, and a sentence or a heading that each of them shows in the end.
VIEWS = {
    "#/?user=grace": "All workers now",
    "#/streams": "newest first",
    "#/stream?id=gone": "This stream has ended",
    "#/channels": "The channels with the newest events",
    "#/channel?name=news": "Kept events, the newest first",
    "#/workers": "2 workers",
    "#/runs": "runs.",
    "#/outbox": "Events of committed transactions",
    "#/doctor": "heartbeat: ",
}


@pytest.fixture(scope="module")
def visitor(chromium: Browser, calm_site: Site) -> Iterator[Visitor]:
    """An admin with an open admin page. All tests use the same page, and change only its fragment."""
    visitor = Visitor(chromium, height=900)
    visitor.expect_errors("404 (NOT FOUND)", "403 (FORBIDDEN)", "422 (UNPROCESSABLE ENTITY)")
    visitor.sign_in(calm_site.url, "ada")
    visitor.page.goto(f"{calm_site.url}/stream/admin")
    yield visitor
    problems = visitor.problems
    visitor.close()
    assert problems == []


@pytest.fixture
def page(visitor: Visitor) -> Page:
    """The page, live, at its start."""
    return show(visitor.page, "#/")


def show(page: Page, fragment: str) -> Page:
    """Shows a view; returns the page when the view has its data and the page is live."""
    page.evaluate("fragment => { location.hash = fragment }", fragment)
    expect(page.locator("#view")).to_have_attribute("aria-busy", "false")
    expect(page.locator("#state")).to_have_text("Live")
    return page


@contextmanager
def stream(site: Site, channels: str = "news", **headers: str) -> Iterator[tuple[Stream, str]]:
    """Has a stream without a user; yields it and the id of its connection."""
    with Stream(f"{site.url}/stream?channels={channels}", headers=headers) as opened:
        yield opened, opened.next_of("sse.open").json()["connection"]


def fact(page: Page, term: str) -> Locator:
    """Returns what the view says about a term."""
    return page.locator(".facts div").filter(has=page.locator("dt", has_text=term)).locator("dd")


def row(page: Page, text: str) -> Locator:
    return page.locator("tbody tr").filter(has_text=text)


# -- the views ----------------------------------------------------------------------------------------------


def test_the_start_counts_the_streams_live(calm_site: Site, page: Page) -> None:
    streams = fact(page, "Streams").first
    expect(streams).to_have_text("1, this page's own")
    page.evaluate("loaded = true")
    with stream(calm_site), stream(calm_site):
        expect(streams).to_have_text("3, one of them this page's own")
    assert page.evaluate("loaded")


def test_the_streams_are_filtered_and_paged(calm_site: Site, page: Page) -> None:
    with ExitStack() as stack:
        ids = [stack.enter_context(stream(calm_site, "ticks"))[1] for _ in range(3)]
        show(page, "#/streams")
        page.get_by_role("textbox", name="Channel").fill("ticks")
        page.get_by_role("button", name="Filter").click()
        expect(page.locator("#said")).to_have_text("3 streams of channel ticks, newest first.")
        expect(page.locator("tbody tr td:first-child")).to_have_text(ids[::-1])
        page.evaluate("location.hash += '&limit=2'")
        expect(page.locator("tbody tr td:first-child")).to_have_text(ids[:0:-1])
        page.get_by_role("link", name="Next page").click()
        expect(page.locator("tbody tr td:first-child")).to_have_text(ids[:1])
        page.go_back()
        expect(page.locator("tbody tr")).to_have_count(2)
        page.get_by_role("textbox", name="User").fill("nobody")
        page.get_by_role("button", name="Filter").click()
        expect(page.get_by_text("No stream is open here.")).to_be_visible()
        page.go_back()
        expect(page.get_by_role("textbox", name="User")).to_have_value("")


def test_one_stream_is_described_and_disconnected(calm_site: Site, page: Page) -> None:
    with stream(calm_site, "news,ticks", **{"User-Agent": HOSTILE}) as (opened, id):
        show(page, "#/streams")
        page.get_by_role("link", name=id).click()
        expect(page.get_by_role("heading", name=f"Stream {id}")).to_be_focused()
        expect(fact(page, "Browser")).to_have_text(HOSTILE)
        expect(fact(page, "Behind the newest event")).to_have_text("not at all")
        expect(page.get_by_role("link", name="ticks")).to_be_visible()
        page.get_by_role("button", name="Disconnect").click()
        assert opened.next_of("sse.close").json()["reconnect"] is True
        expect(page.locator("#view")).to_contain_text("This stream has ended")


def test_a_channel_shows_its_events_and_publishes_one(calm_site: Site, page: Page) -> None:
    channel = "user:nobody"
    calm_site.announcer.publish({"text": HOSTILE}, "greeting", channel=channel)
    show(page, f"#/channel?name={channel}")
    kept = row(page, "greeting")
    expect(kept).to_contain_text(HOSTILE)
    expect(fact(page, "Streams that listen")).to_have_text("0")
    data = page.get_by_label("Data")
    data.fill(json.dumps({"text": "by hand"}))
    page.get_by_role("button", name="Publish").click()
    expect(page.locator(".answer")).to_contain_text("Published as ")
    expect(row(page, "by hand")).to_contain_text("test")
    expect(fact(page, "Kept").first).to_contain_text("2 events")
    page.get_by_label("Type").fill("two\nlines" * 100)
    page.get_by_role("button", name="Publish").click()
    refused = page.locator(".answer[data-level=bad]")
    expect(refused).not_to_be_empty()
    calm_site.announcer.publish("the last", channel=channel)
    expect(row(page, "the last")).to_be_visible()
    expect(refused).to_be_visible()  # new data changes neither its text nor its color
    assert page.evaluate("[typeof hacked, document.images.length]") == ["undefined", 0]


def test_a_channel_is_found_by_a_part_of_its_name(calm_site: Site, page: Page) -> None:
    calm_site.announcer.publish("1", channel="chat")
    show(page, "#/channels")
    page.get_by_label("Name contains").fill("cha")
    page.get_by_role("button", name="Find").click()
    page.get_by_role("link", name="chat", exact=True).click()
    expect(page.get_by_role("heading", name="Channel chat")).to_be_focused()


def test_the_workers_report_by_themselves(calm_site: Site, page: Page) -> None:
    show(page, "#/workers")
    expect(page.locator("tbody tr")).to_have_count(2)
    expect(page.locator("[data-summary]")).to_have_text(re.compile("^2 workers, "))  # and counts no more
    expect(page.get_by_text("connected", exact=True).first).to_be_visible()
    expect(page.locator("tbody tr").first).to_contain_text("MB")


@pytest.mark.parametrize("fragment", ["#/runs", "#/outbox", "#/doctor"])
def test_a_view_says_something(page: Page, fragment: str) -> None:
    show(page, fragment)
    expect(page.locator("#view")).to_contain_text(VIEWS[fragment])


# -- who got nothing? ---------------------------------------------------------------------------------------

#: Brings about a situation until the block ends; yields the user and the channel to ask for.
Situation = Callable[[Site, Page, str], AbstractContextManager[tuple[str, str]]]


@contextmanager
def not_authorized(site: Site, page: Page, grace: str) -> Iterator[tuple[str, str]]:
    yield "grace", "user:ada"


@contextmanager
def not_connected(site: Site, page: Page, grace: str) -> Iterator[tuple[str, str]]:
    yield "grace", "news"


@contextmanager
def other_prefix(site: Site, page: Page, grace: str) -> Iterator[tuple[str, str]]:
    """A publisher has another prefix than the app, in which grace has a stream."""
    url = site.env["SSE_PUSH_BROKER_URL"]
    other = MessageAnnouncer.from_url(url, SSE_PUSH_PREFIX="another")
    with stream(site, "ticks", Cookie=grace), closing(other):
        other.publish("lost", channel="ticks")
        yield "grace", "ticks"


@contextmanager
def history_gone(site: Site, page: Page, grace: str) -> Iterator[tuple[str, str]]:
    """Grace comes back with a cursor from before the broker lost its data."""
    with Stream(f"{site.url}/stream?channels=news", cursor="lost-1", headers={"Cookie": grace}) as opened:
        id = opened.next_of("sse.open").json()["connection"]
        opened.next_of("sse.reset")
        eventually_on(page, lambda: bool(described(page, id)))
        yield "grace", "news"


@contextmanager
def slow_client(site: Site, page: Page, grace: str) -> Iterator[tuple[str, str]]:
    """Grace's client reads nothing."""
    url = f"{site.url}/stream?channels=chat"
    with Stream(url, headers={"Cookie": grace}, receive_buffer=4096) as opened:
        id = opened.next_of("sse.open").json()["connection"]
        eventually_on(page, lambda: bool(described(page, id)))
        while not described(page, id).get("buffered"):
            site.announcer.publish_many([{"data": "x" * 9000, "channel": "chat"}] * 20)
        eventually_on(page, lambda: (described(page, id).get("waiting") or 0) > 2)
        yield "grace", "chat"


def described(page: Page, id: str) -> dict[str, Any]:
    """Returns what the server says about a stream; {} if it does not know the stream yet."""
    answer: dict[str, Any] = page.request.get(page.url.partition("#")[0] + f"/streams/{id}").json()
    return cast("dict[str, Any]", answer.get("stream", {}))


@contextmanager
def worker_deaf(site: Site, page: Page, grace: str) -> Iterator[tuple[str, str]]:
    """The workers lose their links to the broker, and may not subscribe again."""
    with redis.Redis.from_url(site.env["SSE_PUSH_BROKER_URL"]) as admin:
        admin.execute_command("ACL SETUSER default -subscribe -psubscribe -ssubscribe")
        admin.execute_command("CLIENT KILL TYPE pubsub")
        try:
            yield "grace", "news"
        finally:
            admin.execute_command("ACL SETUSER default +@all")
    page.evaluate("location.hash = '#/workers'")
    expect(page.get_by_text("connected", exact=True)).to_have_count(2)


SITUATIONS = (not_authorized, not_connected, other_prefix, history_gone, slow_client, worker_deaf)


@pytest.fixture(scope="module")
def grace(chromium: Browser, calm_site: Site) -> Iterator[str]:
    """The cookie of a member who has signed in."""
    visitor = Visitor(chromium)
    page = visitor.sign_in(calm_site.url, "grace")
    yield "; ".join(f"{cookie['name']}={cookie['value']}" for cookie in page.context.cookies())
    visitor.close()


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.__name__)
def test_three_clicks_lead_to_the_reason(
    calm_site: Site, page: Page, grace: str, situation: Situation
) -> None:
    with situation(calm_site, page, grace) as (user, channel):
        page.evaluate("clicks = 0; onclick = () => { clicks += 1 }")
        page.get_by_role("textbox", name="User").fill(user)
        page.get_by_role("textbox", name="Channel").fill(channel)
        page.get_by_role("button", name="Find the reason").click()
        reason = page.locator(f"#view .notice[data-name={situation.__name__}]")
        expect(reason).to_be_visible()
        expect(page.locator("#said")).to_have_text(reason.inner_text().replace("\n", ""))
        assert page.evaluate("clicks") <= 3


# -- safety -------------------------------------------------------------------------------------------------


def test_a_write_without_the_token_changes_nothing(calm_site: Site, page: Page) -> None:
    with stream(calm_site) as (opened, id):
        status = page.evaluate(
            """async (id) => (await fetch(`admin/streams/${id}/disconnect`, {
              method: "POST", headers: { "Content-Type": "application/json" }, body: "{}" })).status""",
            id,
        )
        assert status == 403
        calm_site.announcer.publish("still open", channel="news")
        assert opened.take(1)[0].data == "still open"


def test_members_and_visitors_get_nothing(calm_site: Site, visit: Visit) -> None:
    visitor = visit()
    assert visitor.page.request.get(f"{calm_site.url}/stream/admin").status == 401
    grace = visitor.sign_in(calm_site.url, "grace")
    for path in ("admin", "admin/session", "admin/streams", "?channels=sse.admin"):
        assert grace.request.get(f"{calm_site.url}/stream/{path}".replace("/?", "?")).status == 403


# -- use ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fragment", VIEWS)
def test_a_view_fits_a_phone_and_is_easy_to_read_in_the_dark(
    calm_site: Site, page: Page, fragment: str
) -> None:
    with stream(calm_site, "news", **{"User-Agent": "m" * 300}):
        calm_site.announcer.publish("w" * 500, "t" * 100, channel="news")
        show(page, fragment)
        expect(page.locator("#view")).to_contain_text(VIEWS[fragment])
        page.set_viewport_size({"width": 390, "height": 844})
        assert page.evaluate(TOO_WIDE) == []
        page.set_viewport_size({"width": 1280, "height": 900})
        assert page.evaluate(TOO_WIDE) == []
        assert page.evaluate(PALE) == []
        page.emulate_media(color_scheme="dark")
        assert page.evaluate(PALE) == []
        page.emulate_media(color_scheme="light")


def test_the_keyboard_alone_leads_to_the_reason_and_on(calm_site: Site, page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 500})
    page.reload()
    expect(page.get_by_role("textbox", name="User")).to_be_focused()
    page.keyboard.type("grace")
    page.keyboard.press("Enter")
    expect(page.locator("#view .notice")).to_be_in_viewport(ratio=1)
    expect(page.get_by_role("textbox", name="User")).to_be_focused()
    expect(page.locator("#said")).not_to_be_empty()
    page.set_viewport_size({"width": 1280, "height": 900})
    page.reload()  # the address has a question now, so the focus stays where browsers begin
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Who got nothing?")).to_be_focused()


def test_the_page_says_that_it_still_counts_the_workers(calm_site: Site, page: Page) -> None:
    page.reload()
    expect(fact(page, "Workers").first).to_contain_text(" so far, counting")


def test_a_finding_of_the_doctor_has_its_name_on_a_phone_too(calm_site: Site, page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    show(page, "#/doctor")
    expect(page.locator("#view li[data-name='secret key']")).to_contain_text("secret key: is set")
    page.set_viewport_size({"width": 1280, "height": 900})


def test_new_data_takes_neither_the_focus_nor_the_typed_text(calm_site: Site, page: Page) -> None:
    show(page, "#/channel?name=chat")
    page.get_by_label("Type").fill("half typ")
    calm_site.announcer.publish("meanwhile", channel="chat")
    page.evaluate("dispatchEvent(new HashChangeEvent('hashchange'))")  # reads the data again, as a timer does
    expect(row(page, "meanwhile")).to_be_visible()
    expect(page.get_by_label("Type")).to_be_focused()
    expect(page.get_by_label("Type")).to_have_value("half typ")


def test_the_example_leads_admins_to_the_page(calm_site: Site, visit: Visit) -> None:
    page = visit().sign_in(calm_site.url, "ada")
    page.goto(f"{calm_site.url}/start/")
    page.get_by_role("link", name="Admin", exact=True).click()
    expect(page.get_by_role("heading", name="Who got nothing?")).to_be_visible()


# -- trouble ------------------------------------------------------------------------------------------------


def test_without_a_network_the_page_says_so_and_keeps_the_last_data(page: Page, visitor: Visitor) -> None:
    visitor.expect_network_errors()
    show(page, "#/workers")
    page.context.set_offline(True)
    expect(page.locator("#state")).to_have_text("Not live: this device has no network")
    expect(page.locator("#notice")).to_contain_text("The server does not answer.")
    expect(page.locator("tbody tr").first).to_be_visible()
    page.context.set_offline(False)
    expect(page.locator("#state")).to_have_text("Live")
    expect(page.locator("#notice")).to_be_hidden()


def test_without_the_broker_the_page_says_so_and_keeps_the_last_data(
    calm_site: Site, page: Page, visitor: Visitor
) -> None:
    visitor.expect_errors("503 (SERVICE UNAVAILABLE)")
    show(page, "#/streams")
    with redis.Redis.from_url(calm_site.env["SSE_PUSH_BROKER_URL"]) as admin:
        admin.execute_command("CLIENT PAUSE 2500 ALL")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")  # reads the data again
    expect(page.locator("#notice")).to_contain_text("The broker does not answer.")
    expect(page.locator("#notice")).to_contain_text("What you see is from ")
    expect(page.locator("tbody tr").first).to_be_visible()


def test_the_page_is_live_again_after_its_stream_was_closed(calm_site: Site, page: Page) -> None:
    show(page, "#/streams?channel=sse.admin")
    own = page.locator("tbody tr td:first-child")
    before = own.inner_text()
    own.get_by_role("link").click()
    page.get_by_role("button", name="Disconnect").click()
    expect(page.locator("#view")).to_contain_text("This stream has ended")
    show(page, "#/streams?channel=sse.admin")
    expect(own).not_to_have_text(before)


def test_the_end_of_the_session_is_told(page: Page, visitor: Visitor) -> None:
    visitor.sign_out_silently()
    page.evaluate("location.hash = '#/streams'")
    expect(page.locator("#notice")).to_contain_text("You are not signed in any more.")
    expect(page.locator("#view tr")).to_have_count(0)
    eventually_on(page, lambda: page.locator("#view").inner_text() == "")
