"""Over HTTP/1.1 the tabs of a site share one connection by themselves."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route

from tests.support.site import site

from .conftest import PATIENCE, eventually_on
from .plain import Server, running

#: Opens a stream in a tab. `received` has the data of its events, `opened` its connection ids.
LISTEN = """async ([channels, options]) => {
  const { PushClient } = await import("/stream/client/push-client.js");
  window.received = [];
  window.opened = [];
  window.changes = [];
  window.client = new PushClient(`/stream?channels=${channels}`, { minDelay: 50, ...options });
  client.on("message", ({ data }) => received.push(data));
  client.on("sse.open", ({ data }) => opened.push(data.connection));
  client.on("sse.channels", ({ data }) => changes.push(data));
}"""


@pytest.fixture(scope="module")
def server(valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("shared")
    with running(valkey_url, folder, app="tests.apps.members:app", SSE_PUSH_HEARTBEAT="15") as server:
        yield server


Tabs = Callable[..., Page]


@pytest.fixture
def tabs(chromium: Browser, server: Server) -> Iterator[Tabs]:
    """Returns a function that opens tabs of one browser window."""
    context = chromium.new_context()
    context.set_default_timeout(PATIENCE)

    def open_tab(channels: str, user: str | None = None, url: str = server.url, **options: Any) -> Page:
        page = context.new_page()
        page.goto(url if user is None else f"{url}/login/{user}")
        page.evaluate(LISTEN, [channels, options])
        return page

    yield open_tab
    context.close()


def received(page: Page) -> list[Any]:
    return list(page.evaluate("received"))


def all_received(pages: list[Page], count: int) -> None:
    eventually_on(pages[0], lambda: all(len(received(page)) >= count for page in pages))


def shares(page: Page) -> bool:
    """Whether the tab uses a shared stream: its id then has a part of the tab's own."""
    return "~" in str(page.evaluate("opened.at(-1) ?? ''"))


def all_share(pages: list[Page]) -> None:
    eventually_on(pages[0], lambda: all(map(shares, pages)))


@contextlib.contextmanager
def busy(server: Server, channel: str) -> Iterator[None]:
    """Publishes the numbers from 0 on, ten a second, until the block ends."""
    ended = threading.Event()

    def publish() -> None:
        for number in itertools.count():
            if ended.wait(0.1):
                return
            server.announcer.publish(number, channel=channel)

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_ten_tabs_load_and_are_live(server: Server, tabs: Tabs) -> None:
    pages = [tabs("news") for _ in range(10)]
    all_share(pages)
    server.wait_for_streams(pages[0], {"news"})
    for n in range(3):
        server.announcer.publish(n, channel="news")
    all_received(pages, 3)
    assert [received(page) for page in pages] == [[0, 1, 2]] * 10


def test_tabs_that_begin_with_all_kept_events_share_too(server: Server, tabs: Tabs) -> None:
    for n in range(2):
        server.announcer.publish(n, channel="kept")
    pages = [tabs("kept", lastEventId="earliest") for _ in range(8)]
    all_received(pages, 2)
    server.announcer.publish(2, channel="kept")
    all_share(pages)
    all_received(pages, 3)
    assert [received(page) for page in pages] == [[0, 1, 2]] * 8


def test_a_tab_shares_although_a_request_for_a_module_is_lost(server: Server, tabs: Tabs) -> None:
    lost: list[Route] = []

    def lose_one(route: Route) -> None:
        if lost:
            return route.continue_()
        lost.append(route)
        return route.abort()

    tabs("lobby").context.route("**/tabs/hub.js", lose_one)
    pages = [tabs("lobby") for _ in range(2)]
    all_share(pages)
    assert len(lost) == 1


def test_tabs_with_quiet_channels_share_while_another_channel_is_busy(
    valkey_url: str, tmp_path: Path, tabs: Tabs
) -> None:
    """Heartbeats are so rare that no tab gets one. If a tab needed one, the next tabs would wait too. Most
    tabs begin with all kept events, but their channels have no events yet."""
    quiet = ["kept", "single", "apart", "edits", "lobby"]
    settings = {"app": "tests.apps.members:app", "SSE_PUSH_HEARTBEAT": "300"}
    with running(valkey_url, tmp_path, **settings) as server, busy(server, "news"):
        pages = [tabs("news", url=server.url)]
        pages += [tabs(name, url=server.url, lastEventId="earliest") for name in quiet]
        all_share(pages)
        for name, page in zip(quiet, pages[1:], strict=True):
            server.announcer.publish(name, channel=name)
            page.wait_for_function("name => received.at(-1) === name", arg=name)
    numbers = received(pages[0])
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), "none lost, none doubled"


def test_a_tab_that_reloads_makes_no_error_in_the_others(server: Server, tabs: Tabs) -> None:
    pages = [tabs(name) for name in ("news", "edits", "lobby")]
    problems: list[str] = []
    for page in pages[:2]:
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text))
    all_share(pages)
    gone = pages[0].evaluate("performance.now()")
    pages[2].reload()
    pages[2].evaluate(LISTEN, ["lobby", {}])
    all_share(pages)
    # Channels that no tab wants are left after five seconds.
    pages[0].wait_for_function("began => performance.now() > began + 6000", arg=gone)
    assert problems == []


def test_a_single_tab_has_one_plain_stream(server: Server, tabs: Tabs) -> None:
    page = tabs("single")
    eventually_on(page, lambda: page.evaluate("opened.length") == 1)
    server.wait_for_streams(page, {"single"})
    server.announcer.publish("one", channel="single")
    all_received([page], 1)
    assert not shares(page)
    assert page.evaluate("client.stats.connects") == 1


@pytest.mark.parametrize(
    "options",
    [
        {"tabs": False},
        {"transport": "fetch"},
        {"token": "abc"},
        {"headers": {"X-Tenant": "7"}},
        {"method": "POST"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_tabs_with_options_of_their_own_do_not_share(
    server: Server, tabs: Tabs, options: dict[str, Any]
) -> None:
    pages = [tabs("apart", **options) for _ in range(2)]
    eventually_on(pages[0], lambda: all(page.evaluate("opened.length") for page in pages))
    server.wait_for_streams(pages[0], {"apart"}, {"apart"})
    server.announcer.publish("one", channel="apart")
    all_received(pages, 1)
    assert not any(map(shares, pages))
    assert "/tabs/" not in str(
        pages[0].evaluate("performance.getEntriesByType('resource').map(({ name }) => name)")
    )


def test_no_tab_gets_the_events_of_another_user(server: Server, tabs: Tabs) -> None:
    """The tabs of a user who has logged out stay open, and another user logs in."""
    first = [tabs("members", "ann") for _ in range(3)]
    all_share(first)
    second = [tabs("members", "bob") for _ in range(3)]
    all_share(second)
    streams = {page.evaluate("opened.at(-1)").partition("~")[0] for page in (*first, *second)}
    assert len(streams) == 2

    def all_closed() -> bool:
        server.announcer.disconnect(user_id="bob", reconnect=False)  # a stream may be just about to open
        return all(page.evaluate("client.state") == "closed" for page in second)

    eventually_on(second[0], all_closed)
    server.announcer.publish("for ann", channel="members")
    all_received(first, 1)
    assert [received(page) for page in second] == [[]] * 3


def test_a_shared_stream_that_gets_another_user_is_given_up(server: Server, tabs: Tabs) -> None:
    """The cookies change under the leader. At its next connection, the server decides for each tab."""
    pages = [tabs("members,user:ann", "ann") for _ in range(3)]
    pages += [tabs("members", "ann") for _ in range(2)]
    all_share(pages)
    stranger = tabs("members", "bob")
    eventually_on(stranger, lambda: stranger.evaluate("opened.length") > 0)
    server.announcer.disconnect(user_id="ann", reconnect=True)
    # The channel user:ann is not for bob, whose cookie all tabs have now.
    eventually_on(pages[0], lambda: all(page.evaluate("client.state") == "closed" for page in pages[:3]))
    all_share([*pages[3:], stranger])
    server.announcer.publish("for ann", channel="user:ann")
    server.announcer.publish("for members", channel="members")
    all_received([*pages[3:], stranger], 1)
    assert [received(page) for page in (*pages[3:], stranger)] == [["for members"]] * 3
    assert [received(page) for page in pages[:3]] == [[]] * 3


def test_an_event_can_exclude_one_of_the_tabs(server: Server, tabs: Tabs) -> None:
    pages = [tabs("edits") for _ in range(3)]
    all_share(pages)
    cause = pages[1].evaluate("opened.at(-1)")
    server.announcer.publish("edit", channel="edits", exclude=cause)
    server.announcer.publish("end", channel="edits")
    eventually_on(pages[0], lambda: all("end" in received(page) for page in pages))
    assert [received(page) for page in pages] == [["edit", "end"], ["end"], ["edit", "end"]]


def test_a_tab_joins_and_leaves_channels_of_its_own(server: Server, tabs: Tabs) -> None:
    pages = [tabs("lobby", "ann") for _ in range(3)]
    all_share(pages)
    pages[0].evaluate("client.join('members')")
    eventually_on(pages[0], lambda: len(pages[0].evaluate("changes")) == 1)
    all_share(pages)
    refused = pages[1].evaluate("client.join('user:bob').catch(({ status }) => status)")
    assert refused == 403
    server.announcer.publish("hello", channel="members")
    server.announcer.publish("end", channel="lobby")
    eventually_on(pages[0], lambda: all("end" in received(page) for page in pages))
    assert [received(page) for page in pages] == [["hello", "end"], ["end"], ["end"]]
    assert pages[1].evaluate("[client.state, client.channels]") == ["open", ["lobby"]]
    pages[0].evaluate("client.leave('members')")
    server.announcer.publish("not heard", channel="members")
    server.announcer.publish("last", channel="lobby")
    eventually_on(pages[0], lambda: all("last" in received(page) for page in pages))
    assert received(pages[0]) == ["hello", "end", "last"]
    server.wait_for_streams(pages[0], {"lobby"})


def test_a_refused_join_is_told_when_the_leader_connects_again_before_the_answer(
    server: Server, tabs: Tabs
) -> None:
    pages = [tabs("lobby", "ann") for _ in range(3)]
    all_share(pages)
    held: list[Route] = []
    pages[1].route("**/channels", lambda route: route.continue_() if held else held.append(route))
    pages[1].evaluate(
        "() => void (window.told = client.join('user:bob').then(() => 'joined', ({ status }) => status))"
    )
    eventually_on(pages[1], lambda: bool(held))
    opened = pages[1].evaluate("opened.length")
    pages[0].evaluate("client.join('members')")
    eventually_on(pages[1], lambda: pages[1].evaluate("opened.length") > opened)
    held[0].continue_()
    assert pages[1].evaluate("told") == 403
    assert pages[1].evaluate("[client.state, client.channels]") == ["open", ["lobby"]]
    all_share(pages)


def test_the_app_gives_channels_to_one_tab(server: Server, tabs: Tabs) -> None:
    pages = [tabs("lobby", "ann") for _ in range(2)]
    all_share(pages)
    server.announcer.join(pages[1].evaluate("opened.at(-1)"), "members")
    eventually_on(pages[1], lambda: len(pages[1].evaluate("changes")) == 1)
    assert pages[1].evaluate("changes[0]") == {
        "channels": ["lobby", "members"],
        "joined": ["members"],
        "left": [],
    }
    server.announcer.publish("hello", channel="members")
    server.announcer.publish("end", channel="lobby")
    eventually_on(pages[0], lambda: all("end" in received(page) for page in pages))
    assert [received(page) for page in pages] == [["end"], ["hello", "end"]]


def test_over_http2_each_tab_has_its_own_stream(chromium: Browser, valkey_url: str, tmp_path: Path) -> None:
    with site(tmp_path, valkey_url, SSE_PUSH_PREFIX="http2") as running:
        context = chromium.new_context(ignore_https_errors=True)
        context.set_default_timeout(PATIENCE)
        pages = [context.new_page() for _ in range(8)]
        for page in pages:
            page.goto(running.url)
            page.evaluate(LISTEN, ["news", {}])
        eventually_on(pages[0], lambda: all(page.evaluate("opened.length") for page in pages))
        page = pages[0]
        assert page.evaluate("performance.getEntriesByType('navigation')[0].nextHopProtocol") == "h2"
        loaded = page.evaluate("performance.getEntriesByType('resource').map(({ name }) => name)")
        assert not [name for name in loaded if "/tabs/" in name]
        context.close()


def test_a_line_in_the_console_says_why_a_stream_waits(chromium: Browser, server: Server) -> None:
    """The browser does not trust the address 0.0.0.0 as it trusts localhost, so it offers no Web Locks."""
    context = chromium.new_context()
    page = context.new_page()
    page.goto(server.url.replace("127.0.0.1", "0.0.0.0"))
    assert page.evaluate("navigator.locks") is None
    with page.expect_console_message(lambda message: message.type == "warning", timeout=PATIENCE) as warned:
        for _ in range(7):
            page.evaluate(LISTEN, ["news", {}])
    assert "six connections" in warned.value.text
    assert "no Web Locks" in warned.value.text
    context.close()
