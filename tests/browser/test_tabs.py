"""All tabs of a browser over one connection, against the real server: nothing lost, nothing doubled."""

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

#: Listens in a tab; `heard` has what came, `opened` the openings.
LISTEN = """async ([channels, options]) => {
  const { PushClient } = await import("/stream/client/push-client.js");
  window.heard = [];
  window.states = [];
  window.resets = 0;
  window.client = new PushClient(`/stream?channels=${channels}`, { tabs: true, minDelay: 50, ...options });
  client.on("message", ({ data, lastEventId }) => heard.push([data, lastEventId, performance.now()]));
  client.on("sse.reset", () => { resets += 1; });
  const began = performance.now();
  client.once("sse.open", () => { window.opening = performance.now() - began; });
  client.addEventListener("statechange", ({ detail }) => states.push(detail));
}"""


@pytest.fixture(scope="module")
def server(valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A stream of a tab's own is given up with its next event: a heartbeat does, so they are frequent."""
    with running(valkey_url, tmp_path_factory.mktemp("tabs"), SSE_PUSH_HEARTBEAT="2") as server:
        yield server


@pytest.fixture
def tabs(chromium: Browser, server: Server) -> Iterator[Callable[..., Page]]:
    """Opens tabs of one browser window."""
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
    server.wait_for_streams(pages[0], {f"ten{n}" for n in range(11)})
    for n in range(11):
        server.announcer.publish(f"to {n}", channel=f"ten{n}")
    server.announcer.publish("to 2 and 3", channel=["ten2", "ten3"])
    server.announcer.broadcast("to all")
    eventually_on(pages[0], lambda: all("to all" in heard(page) for page in pages))
    for n, page in enumerate(pages):
        twice = ["to 2 and 3"] if {n, n + 1} & {2, 3} else []
        assert heard(page) == [f"to {n}", f"to {n + 1}", *twice, "to all"]
    server.wait_for_streams(pages[0], {f"ten{n}" for n in range(11)})


#: Connections of their own that tabs may have together while they wait for the shared one.
ALONE = 3


def test_tabs_that_wait_for_the_leader_leave_it_a_connection(
    server: Server, tabs: Callable[..., Page]
) -> None:
    """A browser opens six to a server: were they all taken, the leader could never connect."""
    held: list[Route] = []
    held_back = True

    def hold_back(route: Route) -> None:
        if held_back:
            held.append(route)
        else:
            route.continue_()

    def prepare(page: Page) -> None:  # each of them may lead; only the shared connection asks for tags
        page.route(lambda url: "tagged=1" in url, hold_back)

    first, *others = [tabs(f"wait{n}", prepare=prepare) for n in range(10)]
    eventually_on(first, lambda: len(server.listening()) == ALONE)
    for page in others:  # longer than they wait for the leader
        page.evaluate("new Promise((done) => setTimeout(done, 2500 - performance.now()))")
    assert len(server.listening()) == ALONE
    held_back = False
    for route in held:
        with contextlib.suppress(PlaywrightError):  # given up by a tab that led before
            route.continue_()
    all_open([first, *others])
    server.wait_for_streams(first, {f"wait{n}" for n in range(10)})
    for n in range(10):
        server.announcer.publish(str(n), channel=f"wait{n}")
    all_heard([first, *others], 1)
    assert [heard(page) for page in (first, *others)] == [[str(n)] for n in range(10)]


def leader_of(pages: list[Page]) -> Page:
    """The tab that holds the connection, once there is one."""
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
  return (await locks()).some(({ name, clientId }) => clientId === me && name.endsWith("/stream"));
}"""


class TakeOver:
    """How long events stay away from some tabs while the block runs, which ends a leader.

    Compared with a second, longer by how they come otherwise and by how long a tab takes to open a stream on
    this machine. One that is busy with other things may hold up a take-over; hardly all of them.
    """

    def __init__(self) -> None:
        self.found: list[tuple[float, float]] = []  # seconds that it took, and that it may take

    @contextlib.contextmanager
    def measured(self, pages: list[Page]) -> Iterator[None]:
        before = [len(heard(page)) for page in pages]
        usual = max(self._longest(page, 0, count) for page, count in zip(pages, before, strict=True))
        opening = min(page.evaluate("opening") for page in pages) / 1000
        yield
        all_heard(pages, max(before) + 20)
        took = max(self._longest(page, count - 1, None) for page, count in zip(pages, before, strict=True))
        self.found.append((took, stretched(1) + usual + opening))

    def _longest(self, page: Page, first: int, last: int | None) -> float:
        """Seconds between two events that followed each other."""
        times: list[float] = page.evaluate("heard.map((one) => one[2])")[first:last]
        return max(after - before for before, after in pairwise(times)) / 1000

    @property
    def in_time(self) -> bool:
        return any(took <= limit for took, limit in self.found)


def test_when_the_leader_is_closed_another_takes_over(server: Server, tabs: Callable[..., Page]) -> None:
    pages = [tabs("closed") for _ in range(4)]
    all_open(pages)
    detach = TakeOver()
    with Counting(server.announcer, "closed") as counting:
        all_heard(pages, 20)
        for _ in range(3):
            leader = leader_of(pages)
            pages.remove(leader)
            with detach.measured(pages):
                leader.close()
    assert detach.in_time, detach.found
    all_heard(pages, counting.count)
    for page in pages:
        assert heard(page) == counting.numbers()
        assert page.evaluate("resets") == 0
    server.wait_for_streams(pages[0], {"closed"})


HANG = "() => { setTimeout(() => { const end = Date.now() + 2500; while (Date.now() < end); }) }"


@pytest.mark.parametrize("how", ["frozen", "hanging"])
def test_when_the_leader_is_frozen_another_takes_over(
    server: Server, tabs: Callable[..., Page], how: str
) -> None:
    pages = [tabs(how) for _ in range(3)]
    all_open(pages)
    detach = TakeOver()
    with Counting(server.announcer, how) as counting:
        all_heard(pages, 20)
        while not detach.in_time and len(detach.found) < 3:
            leader = leader_of(pages)
            others = [page for page in pages if page is not leader]
            session = leader.context.new_cdp_session(leader)
            with detach.measured(others):
                if how == "hanging":
                    leader.evaluate(HANG)
                else:
                    # The debugger stops a page wherever it is; the browser freezes no page that is seen.
                    session.send("Debugger.enable")
                    session.send("Debugger.pause")
            if how != "hanging":
                session.send("Debugger.resume")
                session.send("Debugger.disable")
            all_heard([leader], len(heard(others[0])))
    assert detach.in_time, detach.found
    all_heard(pages, counting.count)
    for page in pages:
        assert heard(page) == counting.numbers()
        assert page.evaluate("resets") == 0
    server.wait_for_streams(pages[0], {how})


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
        server.wait_for_streams(first, {"resuming", "other"})
        eventually_on(first, lambda: len(heard(second)) > 60)
    all_heard([first], counting.count)
    all_heard([second], counting.count - 10)
    # Giving up its own connection for the shared one is no failure.
    assert not second.evaluate("states.some(({ reason }) => reason === 'lost')")
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
    together = {f"logical-{name}" for name in ("one", "two", "three", "four")}
    server.wait_for_streams(page, together)

    def publish_until_joined() -> bool:
        server.announcer.publish("four", channel="logical-four")
        return bool(page.evaluate("others[0].heard.includes('four')"))

    eventually_on(page, publish_until_joined)
    for name in ("one", "two", "three"):
        server.announcer.publish(name, channel=f"logical-{name}")
    eventually_on(page, lambda: page.evaluate("others[1].heard.length") == 1)
    eventually_on(page, lambda: page.evaluate("others[0].heard.at(-1)") == "two")
    eventually_on(page, lambda: heard(page) == ["one"])
    assert page.evaluate("others[1].heard") == ["three"]
    server.wait_for_streams(page, together)


LOSE_THE_LEAD = """() => {
  const add = (name) => new client.constructor(`/stream?channels=${name}`, { tabs: true });
  window.more = [add("lead-two")];
  window.add = (name) => more.push(add(name));
  return new Promise((done) => setTimeout(done)).then(() =>
    navigator.locks.request(`sse-push:${location.origin}/stream`, { steal: true }, () => {}));
}"""


def test_a_tab_that_leads_again_goes_on_to_take_channels_in(
    server: Server, tabs: Callable[..., Page]
) -> None:
    page = tabs("lead-one")
    all_open([page])
    # It loses the lead with a channel still to be taken in, and has it again at once.
    page.evaluate(LOSE_THE_LEAD)
    server.wait_for_streams(page, {"lead-one", "lead-two"})
    page.evaluate("add('lead-three')")
    server.wait_for_streams(page, {"lead-one", "lead-two", "lead-three"})
    assert page.evaluate("more.length") == 2


@pytest.mark.parametrize("options", [{}, {"transport": "fetch"}], ids=["EventSource", "fetch"])
def test_batches_of_the_server_come_one_by_one(
    server: Server, tabs: Callable[..., Page], options: dict[str, Any]
) -> None:
    page = tabs("batched", tabs=False, batch=200, **options)
    all_open([page])
    server.announcer.publish_many({"data": str(number), "channel": "batched"} for number in range(30))
    eventually_on(page, lambda: len(heard(page)) == 30)
    assert heard(page) == [str(number) for number in range(30)]
    assert len(set(page.evaluate("heard.map((one) => one[1])"))) == 30
    assert page.evaluate("client.stats.received") < 15
