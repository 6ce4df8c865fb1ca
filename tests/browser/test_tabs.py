"""All tabs of a browser share one connection to the real server. Each tab gets every event once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route
from playwright.sync_api import Error as PlaywrightError

from tests.support.deadline import stretched

from .conftest import PATIENCE, Counting, eventually_on
from .plain import Server, running

#: Opens a stream in a tab. `received` has the events, `states` the changes of the state.
LISTEN = """async ([channels, options]) => {
  const { PushClient } = await import("/stream/client/push-client.js");
  window.received = [];
  window.states = [];
  window.resets = 0;
  window.client = new PushClient(`/stream?channels=${channels}`, { tabs: true, minDelay: 50, ...options });
  client.on("message", ({ data, lastEventId }) => received.push([data, lastEventId, performance.now()]));
  client.on("sse.reset", () => { resets += 1; });
  const began = performance.now();
  client.once("sse.open", () => { window.opening = performance.now() - began; });
  client.addEventListener("statechange", ({ detail }) => states.push(detail));
}"""


@pytest.fixture(scope="module")
def server(valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A tab gives up its own stream with the next event of it. So heartbeats are frequent here."""
    with running(valkey_url, tmp_path_factory.mktemp("tabs"), SSE_PUSH_HEARTBEAT="2") as server:
        yield server


@pytest.fixture
def tabs(chromium: Browser, server: Server) -> Iterator[Callable[..., Page]]:
    """Returns a function that opens tabs of one browser window."""
    context: BrowserContext = chromium.new_context()
    context.set_default_timeout(PATIENCE)

    def open_tab(channels: str, prepare: Callable[[Page], None] | None = None, **options: Any) -> Page:
        page = context.new_page()
        if prepare:
            prepare(page)
        page.goto(server.url)
        page.evaluate(LISTEN, [channels, options])
        return page

    yield open_tab
    context.close()


def received(page: Page) -> list[str]:
    return [str(one[0]) for one in page.evaluate("received")]


def all_open(pages: list[Page]) -> None:
    """Waits until each tab has an open stream."""
    eventually_on(pages[0], lambda: all(page.evaluate("client.state === 'open'") for page in pages))


def all_received(pages: list[Page], count: int) -> None:
    """Waits until each tab has at least `count` events."""
    eventually_on(pages[0], lambda: all(len(received(page)) >= count for page in pages))


def test_ten_tabs_with_different_channels_use_one_connection(
    server: Server, tabs: Callable[..., Page]
) -> None:
    pages = [tabs(f"ten{n},ten{n + 1}") for n in range(10)]
    all_open(pages)
    server.wait_for_streams(pages[0], {f"ten{n}" for n in range(11)})
    for n in range(11):
        server.announcer.publish(f"to {n}", channel=f"ten{n}")
    server.announcer.publish("to 2 and 3", channel=["ten2", "ten3"])
    server.announcer.broadcast("to all")
    eventually_on(pages[0], lambda: all("to all" in received(page) for page in pages))
    for n, page in enumerate(pages):
        twice = ["to 2 and 3"] if {n, n + 1} & {2, 3} else []
        assert received(page) == [f"to {n}", f"to {n + 1}", *twice, "to all"]
    server.wait_for_streams(pages[0], {f"ten{n}" for n in range(11)})


#: Number of own connections that all tabs together may have while they wait for the shared one.
MAX_OWN = 3


def test_tabs_that_wait_for_the_leader_leave_it_a_connection(
    server: Server, tabs: Callable[..., Page]
) -> None:
    """A browser opens six connections to a server. If other tabs used all of them, the leader could not
    connect."""
    held: list[Route] = []
    held_back = True

    def hold_back(route: Route) -> None:
        if held_back:
            held.append(route)
        else:
            route.continue_()

    def prepare(page: Page) -> None:  # only the address of a shared connection begins with ?tagged=1
        page.route(lambda url: "?tagged=1&" in url, hold_back)

    first, *others = [tabs(f"wait{n}", prepare=prepare) for n in range(10)]
    eventually_on(first, lambda: len(server.listening()) == MAX_OWN)
    for page in others:  # longer than a tab waits for the leader
        page.evaluate("new Promise((done) => setTimeout(done, 2500 - performance.now()))")
    assert len(server.listening()) == MAX_OWN
    held_back = False
    for route in held:
        with contextlib.suppress(PlaywrightError):  # an earlier leader has cancelled its request
            route.continue_()
    all_open([first, *others])
    server.wait_for_streams(first, {f"wait{n}" for n in range(10)})
    for n in range(10):
        server.announcer.publish(str(n), channel=f"wait{n}")
    all_received([first, *others], 1)
    assert [received(page) for page in (first, *others)] == [[str(n)] for n in range(10)]


def leader_of(pages: list[Page]) -> Page:
    """Waits until there is one leader, and returns its tab."""
    leaders: list[Page] = []

    def found() -> bool:
        leaders[:] = [page for page in pages if page.evaluate(HOLDS_THE_LOCK)]
        return len(leaders) == 1

    eventually_on(pages[0], found)
    return leaders[0]


HOLDS_THE_LOCK = """async () => {
  const locks = async () => (await navigator.locks.query()).held;
  const probe = `probe ${Math.random()}`;
  const me = await navigator.locks.request(probe, async () =>
    (await locks()).find(({ name }) => name === probe).clientId);
  return (await locks()).some(({ name, clientId }) => clientId === me && name.endsWith("/stream||"));
}"""


class TakeOver:
    """Measures how long some tabs get no events while another tab becomes the leader.

    The limit is one second, plus the usual time between two events, plus the time that a tab needs to open a
    stream on this machine. A busy machine may delay one change of the leader, so one of several must be in
    time.
    """

    def __init__(self) -> None:
        self.found: list[tuple[float, float]] = []  # seconds that it took, and the limit

    @contextlib.contextmanager
    def measured(self, pages: list[Page]) -> Iterator[None]:
        before = [len(received(page)) for page in pages]
        usual = max(self._longest(page, 0, count) for page, count in zip(pages, before, strict=True))
        opening = min(page.evaluate("opening") for page in pages) / 1000
        yield
        all_received(pages, max(before) + 20)
        took = max(self._longest(page, count - 1, None) for page, count in zip(pages, before, strict=True))
        self.found.append((took, stretched(1) + usual + opening))

    def _longest(self, page: Page, first: int, last: int | None) -> float:
        """Returns the longest time between two successive events, in seconds."""
        times: list[float] = page.evaluate("received.map((one) => one[2])")[first:last]
        return max(after - before for before, after in pairwise(times)) / 1000

    @property
    def in_time(self) -> bool:
        return any(took <= limit for took, limit in self.found)


def test_when_the_leader_is_closed_another_takes_over(server: Server, tabs: Callable[..., Page]) -> None:
    pages = [tabs("closed") for _ in range(4)]
    all_open(pages)
    take_over = TakeOver()
    with Counting(server.announcer, "closed") as counting:
        all_received(pages, 20)
        for _ in range(3):
            leader = leader_of(pages)
            pages.remove(leader)
            with take_over.measured(pages):
                leader.close()
    assert take_over.in_time, take_over.found
    all_received(pages, counting.count)
    for page in pages:
        assert received(page) == counting.numbers()
        assert page.evaluate("resets") == 0
    server.wait_for_streams(pages[0], {"closed"})


HANG = "() => { setTimeout(() => { const end = Date.now() + 2500; while (Date.now() < end); }) }"


@pytest.mark.parametrize("how", ["frozen", "hanging"])
def test_when_the_leader_is_frozen_another_takes_over(
    server: Server, tabs: Callable[..., Page], how: str
) -> None:
    pages = [tabs(how) for _ in range(3)]
    all_open(pages)
    take_over = TakeOver()
    with Counting(server.announcer, how) as counting:
        all_received(pages, 20)
        while not take_over.in_time and len(take_over.found) < 3:
            leader = leader_of(pages)
            others = [page for page in pages if page is not leader]
            session = leader.context.new_cdp_session(leader)
            with take_over.measured(others):
                if how == "hanging":
                    leader.evaluate(HANG)
                else:
                    # The browser does not freeze a visible page, so the debugger stops it.
                    session.send("Debugger.enable")
                    session.send("Debugger.pause")
            if how != "hanging":
                session.send("Debugger.resume")
                session.send("Debugger.disable")
            all_received([leader], len(received(others[0])))
    assert take_over.in_time, take_over.found
    all_received(pages, counting.count)
    for page in pages:
        assert received(page) == counting.numbers()
        assert page.evaluate("resets") == 0
    server.wait_for_streams(pages[0], {how})


def test_a_tab_that_resumes_gets_what_it_missed_and_then_shares(
    server: Server, tabs: Callable[..., Page]
) -> None:
    first = tabs("resuming")
    all_open([first])
    with Counting(server.announcer, "resuming") as counting:
        eventually_on(first, lambda: len(received(first)) > 20)
        cursor = first.evaluate("received[9][1]")
        second = tabs("resuming,other", lastEventId=cursor)
        eventually_on(first, lambda: len(received(second)) > 30)
        server.wait_for_streams(first, {"resuming", "other"})
        eventually_on(first, lambda: len(received(second)) > 60)
    all_received([first], counting.count)
    all_received([second], counting.count - 10)
    # The tab gives up its own connection for the shared one. This does not count as a lost connection.
    assert not second.evaluate("states.some(({ reason }) => reason === 'lost')")
    assert received(first) == counting.numbers()
    assert received(second) == counting.numbers()[10:]
    assert second.evaluate("resets") == 0


def test_clients_of_one_page_share_too_and_join_channels(server: Server, tabs: Callable[..., Page]) -> None:
    page = tabs("logical-one")
    page.evaluate(
        """() => {
          window.others = ["two", "three"].map((name) => {
            const other = new client.constructor(`/stream?channels=logical-${name}`, { tabs: true });
            other.received = [];
            return other.on("message", ({ data }) => other.received.push(data));
          });
        }"""
    )
    eventually_on(page, lambda: page.evaluate("others.every(({ state }) => state === 'open')"))
    page.evaluate("others[0].join('logical-four')")
    together = {f"logical-{name}" for name in ("one", "two", "three", "four")}
    server.wait_for_streams(page, together)

    def publish_until_joined() -> bool:
        server.announcer.publish("four", channel="logical-four")
        return bool(page.evaluate("others[0].received.includes('four')"))

    eventually_on(page, publish_until_joined)
    for name in ("one", "two", "three"):
        server.announcer.publish(name, channel=f"logical-{name}")
    eventually_on(page, lambda: page.evaluate("others[1].received.length") == 1)
    eventually_on(page, lambda: page.evaluate("others[0].received.at(-1)") == "two")
    eventually_on(page, lambda: received(page) == ["one"])
    assert page.evaluate("others[1].received") == ["three"]
    server.wait_for_streams(page, together)


LOSE_LEADERSHIP = """() => {
  const add = (name) => new client.constructor(`/stream?channels=${name}`, { tabs: true });
  window.more = [add("leader-two")];
  window.add = (name) => more.push(add(name));
  return new Promise((done) => setTimeout(done)).then(() =>
    navigator.locks.request(`sse-push:${location.origin}/stream||`, { steal: true }, () => {}));
}"""


def test_a_tab_that_becomes_the_leader_again_still_joins_channels(
    server: Server, tabs: Callable[..., Page]
) -> None:
    page = tabs("leader-one")
    all_open([page])
    # The tab stops being the leader before its connection has joined a channel, and becomes the leader again
    # at once.
    page.evaluate(LOSE_LEADERSHIP)
    server.wait_for_streams(page, {"leader-one", "leader-two"})
    page.evaluate("add('leader-three')")
    server.wait_for_streams(page, {"leader-one", "leader-two", "leader-three"})
    assert page.evaluate("more.length") == 2


@pytest.mark.parametrize("options", [{}, {"transport": "fetch"}], ids=["EventSource", "fetch"])
def test_clients_get_the_events_of_a_batch_one_by_one(
    server: Server, tabs: Callable[..., Page], options: dict[str, Any]
) -> None:
    page = tabs("batched", tabs=False, batch=200, **options)
    all_open([page])
    server.announcer.publish_many({"data": str(number), "channel": "batched"} for number in range(30))
    eventually_on(page, lambda: len(received(page)) == 30)
    assert received(page) == [str(number) for number in range(30)]
    assert len(set(page.evaluate("received.map((one) => one[1])"))) == 30
    assert page.evaluate("client.stats.received") < 15
