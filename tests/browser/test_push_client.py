"""The client with a server that follows a script: its requests, its events and its states."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page

from .conftest import Visit, Visitor, eventually_on
from .script import Refusal, Script, Started, event, note, noted, opening, serving, states

#: Makes `client`, and adds its state changes to `notes`.
START = """async (options) => {
  const { PushClient } = await import("/client/push-client.js");
  window.notes = [];
  window.client = new PushClient("/stream?channels=a", { tabs: false, minDelay: 20, ...options });
  client.addEventListener("statechange", ({ detail }) => notes.push(detail));
}"""


#: Waits, after the stream is open, until the client follows the state of the page. The client has imported
#: the same module earlier, so it continues first.
FOLLOWED = "import('/client/page-lifecycle.js').then(() => {})"


@pytest.fixture
def script() -> Iterator[Script]:
    with serving(Script()) as script:
        yield script


@pytest.fixture
def visitor(visit: Visit) -> Visitor:
    """The browser window with the page."""
    return visit()


@pytest.fixture
def start(script: Script, visitor: Visitor) -> Iterator[Started]:
    """Returns a function that opens a page whose client connects to the script."""

    def open_page(*handlers: str, **options: Any) -> Page:
        visitor.page.goto(script.url)
        # One step makes the client and adds the handlers, so that no event is missed.
        lines = "\n".join(f"client.{handler};" for handler in handlers)
        visitor.page.evaluate(START.removesuffix("}") + lines + "}", options)
        return visitor.page

    yield open_page
    visitor.expect_network_errors()


def test_a_handler_gets_type_data_text_and_cursor(script: Script, start: Started) -> None:
    script.then(
        opening() + event({"n": 1}, "price", "e-2") + event("plain text", id="e-3") + event("", id="e-4")
    )
    page = start(note("price"), note("message"))
    assert noted(page, 4) == [
        {"state": "open", "mode": "stream"},
        {"type": "price", "data": {"n": 1}, "text": '{"n": 1}', "lastEventId": "e-2"},
        {"type": "message", "data": "plain text", "text": "plain text", "lastEventId": "e-3"},
        {"type": "message", "data": "", "text": "", "lastEventId": "e-4"},
    ]
    assert page.evaluate("[client.state, client.lastEventId]") == ["open", "e-4"]


def test_events_may_have_the_names_of_browser_events(script: Script, start: Started) -> None:
    script.then(opening() + event(1, "error") + event(2, "open") + event(3, "statechange"))
    page = start(note("error"), note("open"), note("statechange"))
    assert [message.get("data") for message in noted(page, 4)] == [None, 1, 2, 3]
    assert page.evaluate("client.state") == "open"


def test_a_broken_handler_does_not_disturb_the_others(
    script: Script, start: Started, visitor: Visitor
) -> None:
    script.then(opening() + event(1) + event(2))
    page = start('on("message", () => { throw new Error("broken"); })', note("message"))
    assert [message.get("data") for message in noted(page, 3)] == [None, 1, 2]
    eventually_on(page, lambda: visitor.problems == ["broken", "broken"])
    visitor.expect_errors("broken")


def test_off_removes_a_handler(script: Script, start: Started) -> None:
    script.then(opening() + event(1, id="e-2") + event("not received", id="e-3") + event(2, "more", "e-4"))
    page = start(
        'on("message", (window.never = () => notes.push("never"))).off("message", never)',
        'on("message", function once(message) { notes.push(message); client.off("message", once); })',
        note("more"),
    )
    assert [message.get("data") for message in noted(page, 3)] == [None, 1, 2]


def test_a_handler_may_be_added_later(script: Script, start: Started) -> None:
    script.then(opening() + event(1, "late", "e-2"))
    page = start(f'on("sse.open", () => client.{note("late")})')
    assert noted(page, 2)[1] == {"type": "late", "data": 1, "text": "1", "lastEventId": "e-2"}


def test_the_client_reconnects_after_its_cursor_whatever_happens(script: Script, start: Started) -> None:
    heartbeat = event({}, "sse.heartbeat", "e-3")
    script.then(
        opening() + event(1, id="e-2") + Script.END,
        502,  # answer to EventSource, which does not see the status
        503,  # answer to the fetch that finds out why
        Refusal(200, {"Content-Type": "text/html"}, b"a captive portal"),
        opening(id="e-2", resumed=True) + Script.END,  # another fetch succeeds; EventSource connects after it
        opening(id="e-2", resumed=True) + heartbeat + Script.END,
        opening(id="e-3", resumed=True) + event(2, id="e-4"),
    )
    page = start(note("message"))
    eventually_on(page, lambda: page.evaluate("client.lastEventId") == "e-4")
    assert script.cursors == [None, "e-2", "e-2", "e-2", "e-2", "e-2", "e-3"]
    assert states(page) == [
        ("open", None),
        ("waiting", "lost"),
        ("connecting", None),
        ("waiting", "refused"),
        ("connecting", None),
        ("waiting", "refused"),
        ("connecting", None),
        ("open", None),
        ("waiting", "lost"),
        ("connecting", None),
        ("open", None),
        ("waiting", "lost"),
        ("connecting", None),
        ("open", None),
    ]


@pytest.mark.parametrize("status", [204, 400, 401, 403, 410])
def test_a_final_refusal_closes_the_client(script: Script, start: Started, status: int) -> None:
    error = {"code": 1201, "name": "PERMISSION_DENIED", "message": "no"}
    refusal = Refusal(status, {"Content-Type": "application/json"}, json.dumps(error).encode())
    script.then(refusal, refusal)
    page = start('addEventListener("error", ({ detail }) => { window.failed = detail; })')
    (last,) = noted(page, 1)
    assert (last["state"], last["reason"], last["status"]) == ("closed", "refused", status)
    if status != 204:
        assert last["error"] == error
        assert page.evaluate("failed.error.code") == 1201
    assert page.evaluate("client.state") == "closed"
    assert len(script.requests) == 2


def test_random_delays_grow_with_each_failure(script: Script, start: Started) -> None:
    script.then(*[503] * 9, opening())
    page = start(minDelay=1, maxDelay=40)
    eventually_on(page, lambda: page.evaluate("client.state") == "open")
    delays = page.evaluate("notes.filter(({ state }) => state === 'waiting').map(({ delay }) => delay)")
    bounds = [1, 2, 4, 8, 16, 32, 40, 40]
    assert all(0 <= delay < bound for delay, bound in zip(delays, bounds, strict=True))
    assert len(set(delays)) == 8


def test_the_client_obeys_retry_after(script: Script, start: Started) -> None:
    script.then(503, Refusal(503, {"Retry-After": "7"}))
    page = start(minDelay=100)
    waiting = noted(page, 1)[0]
    assert (waiting["state"], waiting["status"]) == ("waiting", 503)
    assert 7000 <= waiting["delay"] < 7100


def test_the_client_closes_after_max_retries_failures_in_a_row(script: Script, start: Started) -> None:
    script.then(*[503] * 4)
    page = start(minDelay=1, maxRetries=2)
    eventually_on(page, lambda: page.evaluate("client.state") == "closed")
    assert page.evaluate("[notes.at(-1).reason, notes.at(-1).status]") == ["retries", 503]
    assert len(script.requests) == 4


def test_delays_are_longer_on_slow_networks(script: Script, start: Started, visitor: Visitor) -> None:
    slow = "Object.defineProperty(navigator.connection, 'effectiveType', { value: '2g' });"
    visitor.page.add_init_script(f"{slow} Math.random = () => 0.5;")
    script.then(Script.END)
    assert noted(start(minDelay=1000), 1)[0]["delay"] == 1500


def test_sse_close_sets_the_delay(script: Script, start: Started) -> None:
    goodbye = event({"reason": "drain", "reconnect": True, "retry": 123}, "sse.close")
    script.then(opening() + goodbye + Script.END, opening(resumed=True))
    page = start(note("sse.close"), minDelay=60_000)
    found = noted(page, 5)
    assert found[2] == {"state": "waiting", "mode": "stream", "reason": "drain", "delay": 123}
    assert found[-1] == {"state": "open", "mode": "stream"}
    assert script.cursors == [None, "e-1"]


def test_sse_close_may_be_final(script: Script, start: Started, visitor: Visitor) -> None:
    visitor.page.clock.install()
    goodbye = event({"reason": "logout", "reconnect": False, "retry": 0}, "sse.close")
    script.then(opening() + goodbye + Script.END)
    page = start()
    assert noted(page, 2) == [
        {"state": "open", "mode": "stream"},
        {"state": "closed", "mode": "stream", "reason": "logout"},
    ]
    page.clock.fast_forward(120_000)
    assert page.evaluate("client.state") == "closed"
    assert len(script.cursors) == 1


def test_close_is_final(script: Script, start: Started, visitor: Visitor) -> None:
    visitor.page.clock.install()
    script.then(opening() + event(1))
    page = start('on("message", () => client.close())')
    assert noted(page, 2) == [{"state": "open", "mode": "stream"}, {"state": "closed", "mode": "stream"}]
    page.evaluate("client.close()")
    page.clock.fast_forward(120_000)
    assert page.evaluate("notes.length") == 2
    assert len(script.cursors) == 1


def test_close_in_an_error_listener_is_final(script: Script, start: Started, visitor: Visitor) -> None:
    visitor.page.clock.install()
    script.then(opening() + Script.END)
    page = start('addEventListener("error", () => client.close())')
    assert noted(page, 2) == [{"state": "open", "mode": "stream"}, {"state": "closed", "mode": "stream"}]
    page.clock.fast_forward(120_000)
    assert page.evaluate("[notes.length, client.state]") == [2, "closed"]
    assert len(script.cursors) == 1


def test_a_silent_connection_is_replaced(script: Script, start: Started) -> None:
    # The second heartbeat interval is long, so that a slow machine does not give up the new connection too.
    script.then(opening(heartbeat=1), opening(heartbeat=1000, resumed=True))
    page = start()
    noted(page, 4)
    assert states(page) == [("open", None), ("waiting", "silent"), ("connecting", None), ("open", None)]


#: Waits until all expired timers have fired.
SOON = "new Promise((done) => setTimeout(done, 50))"


def test_a_heartbeat_interval_too_long_for_a_timer_is_ignored(script: Script, start: Started) -> None:
    script.then(opening(heartbeat=10**9), opening(heartbeat=10**9))
    page = start()
    noted(page, 1)
    page.evaluate(SOON)
    assert states(page) == [("open", None)]


def test_the_stream_begins_at_the_given_cursor(script: Script, start: Started) -> None:
    script.then(opening(id="e-9"))
    page = start(lastEventId="earliest")
    noted(page, 1)
    assert script.cursors == ["earliest"]
    assert page.evaluate("client.lastEventId") == "e-9"


def test_a_once_handler_is_called_once(script: Script, start: Started) -> None:
    script.then(opening() + event(1) + event(2) + event(3, "end"))
    page = start(
        note("message").replace("on(", "once(", 1),
        'once("message", notes.push).off("message", notes.push)',
        note("end"),
    )
    assert [message.get("data") for message in noted(page, 3)] == [None, 1, 3]


ITERATE = """(async () => {
  for await (const { type, data } of client.events("price")) {
    notes.push(data);
    if (data === 3) break;
  }
  notes.push("left");
  for await (const { type } of client) notes.push(type);
  notes.push("over");
})()"""


def test_a_loop_gets_the_events(script: Script, start: Started) -> None:
    script.then(opening() + event(1, "price") + event(0, "other") + event(2, "price") + event(3, "price"))
    script.then(opening() + event(1, "unheard of"))
    page = start(f"close; {ITERATE}", minDelay=1)
    eventually_on(page, lambda: page.evaluate("notes.includes('unheard of')"))
    page.evaluate("client.close()")
    eventually_on(page, lambda: page.evaluate("notes.at(-1)") == "over")
    assert [one for one in page.evaluate("notes") if not isinstance(one, dict)] == [
        *(1, 2, 3, "left", "sse.open", "unheard of", "over"),
    ]


def test_a_loop_that_is_too_far_behind_gets_an_error(script: Script, start: Started) -> None:
    script.then(opening() + event(1) * 1002)
    page = start("close; window.loop = client.events('message')")
    eventually_on(page, lambda: page.evaluate("client.stats.received") == 1003)
    assert "events behind" in page.evaluate("loop.next().then(String, String)")


def test_the_stats_count_events_and_connections(script: Script, start: Started) -> None:
    script.then(opening() + event("four") + Script.END, opening(id="e-5", resumed=True))
    page = start("close", minDelay=1)
    eventually_on(page, lambda: page.evaluate("client.stats.reconnects") == 1)
    stats = page.evaluate("client.stats")
    assert (stats["state"], stats["received"], stats["errors"], stats["connects"]) == ("open", 3, 1, 2)
    assert stats["bytes"] > 4
    assert stats["lastEvent"]["type"] == "sse.open"
    assert stats["lastEvent"]["lastEventId"] == "e-5"


def test_joining_and_leaving_reconnects_after_the_cursor(script: Script, start: Started) -> None:
    script.then(opening(), opening(id="e-1", resumed=True), opening(id="e-1", resumed=True))
    page = start("close")
    for step, channels in (("join('b', 'a')", ["a", "b"]), ("leave('a', 'never')", ["b"])):
        eventually_on(page, lambda: page.evaluate("client.state") == "open")
        page.evaluate(f"client.{step}")
        assert page.evaluate("client.channels") == channels
    eventually_on(page, lambda: len(script.requests) == 3)
    assert [one.query["channels"] for one in script.requests] == [["a"], ["a,b"], ["b"]]
    assert script.cursors == [None, "e-1", "e-1"]


def test_the_cursor_is_kept_over_page_loads(script: Script, start: Started) -> None:
    script.then(opening() + event(1, id="e-2"), opening(id="e-2", resumed=True))
    page = start(note("message"), remember=True)
    noted(page, 2)
    page.evaluate(FOLLOWED)
    start("close", remember=True)
    eventually_on(page, lambda: len(script.requests) == 2)
    assert script.cursors == [None, "e-2"]
