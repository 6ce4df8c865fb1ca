"""All tabs of a browser over one connection, against the real server: nothing lost, nothing doubled."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from flask_sse_push import MessageAnnouncer
from tests.support.processes import Gunicorn, gunicorn

from .conftest import PATIENCE, Counting, eventually_on, prefixes

#: Listens in a tab; `heard` has what came, `opened` the openings.
LISTEN = """async ([channels, options]) => {
  const { PushClient } = await import("/stream/client/push-client.js");
  window.heard = [];
  window.states = [];
  window.resets = 0;
  window.client = new PushClient(`/stream?channels=${channels}`, { tabs: true, minDelay: 50, ...options });
  client.on("message", ({ data, lastEventId }) => heard.push([data, lastEventId, performance.now()]));
  client.on("sse.reset", () => { resets += 1; });
  client.addEventListener("statechange", ({ detail }) => states.push(detail));
}"""


class Server:
    """One worker, so that its figures are all there are."""

    def __init__(self, gunicorn: Gunicorn, announcer: MessageAnnouncer) -> None:
        self.url = gunicorn.url
        self.gunicorn = gunicorn
        self.announcer = announcer

    def streams(self) -> int:
        with urllib.request.urlopen(f"{self.url}/stats") as answer:
            return int(json.load(answer)["streams"])


@pytest.fixture(scope="module")
def server(valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"SSE_PUSH_PREFIX": f"tabs{next(prefixes)}"}
    env = {"SSE_PUSH_BROKER_URL": valkey_url, "SSE_PUSH_HEARTBEAT": "2", **settings}
    log = tmp_path_factory.mktemp("tabs") / "server.log"
    with gunicorn("tests.apps.plain:app", env=env, log=log) as running:
        announcer = MessageAnnouncer.from_url(valkey_url, **settings)
        yield Server(running, announcer)
        announcer.close()
    assert "Traceback" not in log.read_text()


@pytest.fixture
def tabs(chromium: Browser, server: Server) -> Iterator[Callable[..., Page]]:
    """Opens tabs of one browser window."""
    context: BrowserContext = chromium.new_context()
    context.set_default_timeout(PATIENCE)

    def open_tab(channels: str, **options: Any) -> Page:
        page = context.new_page()
        page.goto(server.url)
        page.evaluate(LISTEN, [channels, options])
        return page

    yield open_tab
    context.close()


def heard(page: Page) -> list[str]:
    return [str(one[0]) for one in page.evaluate("heard")]


def all_open(pages: list[Page]) -> None:
    """Waits until each tab has its stream."""
    eventually_on(pages[0], lambda: all(page.evaluate("client.state === 'open'") for page in pages))


def all_heard(pages: list[Page], count: int) -> None:
    """Waits until each tab has so many events."""
    eventually_on(pages[0], lambda: all(len(heard(page)) >= count for page in pages))


def test_ten_tabs_with_different_channels_use_one_connection(
    server: Server, tabs: Callable[..., Page]
) -> None:
    pages = [tabs(f"ten{n},ten{n + 1}") for n in range(10)]
    all_open(pages)
    eventually_on(pages[0], lambda: server.streams() == 1)
    for n in range(11):
        server.announcer.publish(f"to {n}", channel=f"ten{n}")
    server.announcer.publish("to 2 and 3", channel=["ten2", "ten3"])
    server.announcer.broadcast("to all")
    eventually_on(pages[0], lambda: all("to all" in heard(page) for page in pages))
    for n, page in enumerate(pages):
        twice = ["to 2 and 3"] if {n, n + 1} & {2, 3} else []
        assert heard(page) == [f"to {n}", f"to {n + 1}", *twice, "to all"]
    assert server.streams() == 1


def leader_of(pages: list[Page]) -> Page:
    """The tab that holds the connection: the one whose requests are not over."""
    (found,) = [page for page in pages if page.evaluate(HOLDS_THE_LOCK)]
    return found


HOLDS_THE_LOCK = """async () => {
  const locks = async () => (await navigator.locks.query()).held;
  const probe = `probe ${Math.random()}`;
  const me = await navigator.locks.request(probe, async () =>
    (await locks()).find(({ name }) => name === probe).clientId);
  return (await locks()).some(({ name, clientId }) => clientId === me && name.endsWith("/stream"));
}"""


def longest_pause(page: Page, first: int = 0, last: int | None = None) -> float:
    """Seconds between two events that followed each other, of some of those that were heard."""
    times: list[float] = page.evaluate("heard.map((one) => one[2])")[first:last]
    pauses = [after - before for before, after in pairwise(times)]
    return max(pauses) / 1000


def test_when_the_leader_is_closed_another_takes_over(server: Server, tabs: Callable[..., Page]) -> None:
    pages = [tabs("closed") for _ in range(4)]
    all_open(pages)
    with Counting(server.announcer, "closed") as counting:
        for _ in range(3):
            eventually_on(pages[0], lambda: len(heard(pages[-1])) > 20)
            leader = leader_of(pages)
            pages.remove(leader)
            leader.close()
            all_heard(pages, len(heard(pages[0])) + 20)
    all_heard(pages, counting.count)
    for page in pages:
        assert heard(page) == counting.numbers()
        # What pauses there are without a leader's end is the machine's.
        assert longest_pause(page) <= 1 + longest_pause(page, last=20)
        assert page.evaluate("resets") == 0
    eventually_on(pages[0], lambda: server.streams() == 1)


HANG = "() => { setTimeout(() => { const end = Date.now() + 2500; while (Date.now() < end); }) }"


@pytest.mark.parametrize("how", ["frozen", "hanging"])
def test_when_the_leader_is_frozen_another_takes_over(
    server: Server, tabs: Callable[..., Page], how: str
) -> None:
    channel = how.replace(" ", "-")
    pages = [tabs(channel) for _ in range(3)]
    all_open(pages)
    leader = leader_of(pages)
    others = [page for page in pages if page is not leader]
    with Counting(server.announcer, channel) as counting:
        eventually_on(others[0], lambda: len(heard(others[0])) > 20)
        session = leader.context.new_cdp_session(leader)
        if how == "hanging":
            leader.evaluate(HANG)
        else:
            # The debugger stops a page wherever it is; the browser itself freezes no page that is seen.
            session.send("Debugger.enable")
            session.send("Debugger.pause")
        since = time.monotonic()
        while time.monotonic() < since + 2:
            others[0].wait_for_timeout(50)
        if how != "hanging":
            session.send("Debugger.resume")
            session.send("Debugger.disable")
        eventually_on(others[0], lambda: len(heard(leader)) >= len(heard(others[0])) - 5)
    all_heard(pages, counting.count)
    for page in pages:
        assert heard(page) == counting.numbers()
        assert page.evaluate("resets") == 0
    for page in others:
        # What pauses there are without a leader's end is the machine's.
        assert longest_pause(page) <= 1 + longest_pause(page, last=20)
    eventually_on(pages[0], lambda: server.streams() == 1)


def test_a_tab_that_resumes_gets_what_it_missed_and_then_shares(
    server: Server, tabs: Callable[..., Page]
) -> None:
    first = tabs("resuming")
    all_open([first])
    with Counting(server.announcer, "resuming") as counting:
        eventually_on(first, lambda: len(heard(first)) > 20)
        cursor = first.evaluate("heard[9][1]")
        second = tabs("resuming,other", lastEventId=cursor)
        eventually_on(first, lambda: len(heard(second)) > 30)
        eventually_on(first, lambda: server.streams() == 1)
        eventually_on(first, lambda: len(heard(second)) > 60)
    all_heard([first], counting.count)
    all_heard([second], counting.count - 10)
    assert heard(first) == counting.numbers()
    assert heard(second) == counting.numbers()[10:]
    assert second.evaluate("resets") == 0


def test_clients_of_one_page_share_too_and_join_channels(server: Server, tabs: Callable[..., Page]) -> None:
    page = tabs("logical-one")
    page.evaluate(
        """() => {
          window.others = ["two", "three"].map((name) => {
            const other = new client.constructor(`/stream?channels=logical-${name}`, { tabs: true });
            other.heard = [];
            return other.on("message", ({ data }) => other.heard.push(data));
          });
        }"""
    )
    eventually_on(page, lambda: page.evaluate("others.every(({ state }) => state === 'open')"))
    page.evaluate("others[0].join('logical-four')")
    eventually_on(page, lambda: server.streams() == 1)

    def publish_until_joined() -> bool:
        server.announcer.publish("four", channel="logical-four")
        return bool(page.evaluate("others[0].heard.includes('four')"))

    eventually_on(page, publish_until_joined)
    for name in ("one", "two", "three"):
        server.announcer.publish(name, channel=f"logical-{name}")
    eventually_on(page, lambda: page.evaluate("others[1].heard.length") == 1)
    eventually_on(page, lambda: page.evaluate("others[0].heard.at(-1)") == "two")
    assert heard(page) == ["one"]
    assert page.evaluate("others[1].heard") == ["three"]
    assert server.streams() == 1


@pytest.mark.parametrize("options", [{}, {"transport": "fetch"}], ids=["EventSource", "fetch"])
def test_batches_of_the_server_come_one_by_one(
    server: Server, tabs: Callable[..., Page], options: dict[str, Any]
) -> None:
    page = tabs("batched", tabs=False, batch=200, **options)
    all_open([page])
    for number in range(30):
        server.announcer.publish(str(number), channel="batched")
    eventually_on(page, lambda: len(heard(page)) == 30)
    assert heard(page) == [str(number) for number in range(30)]
    assert len(set(page.evaluate("heard.map((one) => one[1])"))) == 30
    assert page.evaluate("client.stats.received") < 15
