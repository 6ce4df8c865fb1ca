"""After `close()`, nothing happens any more, wherever the page calls it: no event, no state, no request."""

from __future__ import annotations

import gzip
from base64 import b64encode
from typing import Any, NamedTuple

import pytest

from .conftest import Visitor, eventually_on
from .script import Refusal, Script, event, opening, packed_event
from .test_push_client import SOON, script, visitor

__all__ = ["script", "visitor"]

#: Makes `client`. The page closes it at one place; `later` has all that happens afterwards.
START = """async (options) => {
  const { PushClient } = await import("/client/push-client.js");
  window.later = [];
  window.isClosed = false;
  const note = (what) => isClosed && later.push(what);
  window.close = () => {
    if (isClosed) return;
    client.close();
    isClosed = true;
  };
  const own = {};
  BEFORE
  const quick = { tabs: false, minDelay: 1, maxDelay: 1 };
  window.client = new PushClient("/stream?channels=a", { ...quick, ...options, ...own });
  AFTER
  for (const type of ["message", "price", "sse.open", "sse.close", "sse.reset"]) {
    client.on(type, ({ type, data }) => note([type, data]));
  }
  for (const type of ["error", "statechange"]) client.addEventListener(type, ({ detail }) => note(detail));
}"""


class Place(NamedTuple):
    """A place where code of the page runs, and calls `close`."""

    answers: list[Any]
    after: str = ""  # code that runs after the client was made
    before: str = ""  # code that runs before
    options: dict[str, Any] = {}


def on(type: str) -> str:
    return f'client.on("{type}", close);'


def at_state(state: str, time: int = 1) -> str:
    return (
        'window.times = 0; client.addEventListener("statechange", ({ detail }) => '
        f'detail.state === "{state}" && ++times === {time} && close());'
    )


def after_opening(code: str) -> str:
    """Returns code that runs as soon as the client follows the state of the page."""
    followed = 'import("/client/page-lifecycle.js").then(() => new Promise((next) => setTimeout(next)))'
    return f'client.on("sse.open", () => {followed}.then(() => {{ {code} }}));'


def fire(*types: str) -> str:
    return " ".join(f'dispatchEvent(new Event("{type}"));' for type in types)


ON_ERROR = 'client.addEventListener("error", close);'
SECOND_TOKEN = "let asked = 0; own.token = () => { if (asked++) close(); return 't'; };"
LOST = opening() + Script.END
LIVE = opening() + event(1, id="e-2") + event(2, id="e-3")
DRAIN = event({"reason": "drain", "reconnect": True, "retry": 1}, "sse.close") + Script.END
LOGOUT = event({"reason": "logout", "reconnect": False}, "sse.close") + Script.END
EXPIRED = event({"reason": "expired", "reconnect": False}, "sse.close") + Script.END
BATCH = event([{"data": "1", "id": "e-2"}, {"data": "2", "id": "e-3"}], "sse.batch", "e-3")
PACKED = packed_event(
    {"compressed": True, "encoding": "gzip+base64", "data": b64encode(gzip.compress(b'"big"')).decode()}
)
HTML = Refusal(200, {"Content-Type": "text/html"}, b"<p>")
DENIED = Refusal(401, {"Content-Type": "application/json"}, b'{"code": 1103}')
TAGGED = opening() + "".join(f"channel: a\n{event(n, id=f'e-{n}')}" for n in (2, 3))

PLACES = {
    "right after the constructor": Place([], "close();"),
    "a microtask after the constructor": Place([], "queueMicrotask(close);"),
    "while a module is imported": Place(
        [], "queueMicrotask(() => queueMicrotask(close));", options={"transport": "fetch"}
    ),
    "state connecting": Place([LOST, LIVE], at_state("connecting")),
    "state connecting again": Place([LOST, LOST, LIVE], at_state("connecting", 2)),
    "state open": Place([opening() + event(1) + DRAIN], at_state("open")),
    "state waiting": Place([LOST], at_state("waiting")),
    "state waiting after sse.close": Place([opening() + DRAIN], at_state("waiting")),
    "lost": Place([LOST], ON_ERROR),
    "silent": Place([opening(heartbeat=0.2)], ON_ERROR),
    "refused": Place([503, 503], ON_ERROR),
    "refused for good": Place([403, 403], ON_ERROR),
    "a page of HTML": Place([HTML, HTML], ON_ERROR),
    "the last failure": Place([503, 503], ON_ERROR, options={"maxRetries": 0}),
    "an event that is too large": Place(
        [opening() + event("x" * 9) + event(1)], ON_ERROR, options={"maxEvent": 8}
    ),
    "handler": Place([LIVE], on("message")),
    "handler of once": Place([LIVE], 'client.once("message", close);'),
    "handler of all types": Place([opening() + event(1, "price") + event(2) + DRAIN], on("*")),
    "handler of a batch": Place([opening() + BATCH + event(3)], on("message")),
    "handler of a compressed event": Place([opening() + PACKED + event(3)], on("message")),
    "handler before a compressed event": Place([opening() + event(1, "price") + PACKED], on("price")),
    "handler of sse.open": Place([LIVE], on("sse.open")),
    "handler of sse.reset": Place(
        [opening() + event({"channels": ["a"]}, "sse.reset") + event(1)], on("sse.reset")
    ),
    "handler of sse.heartbeat": Place(
        [opening() + event({}, "sse.heartbeat") + event(1)], on("sse.heartbeat")
    ),
    "handler of sse.error": Place(
        [opening() + event({}, "sse.error") + EXPIRED], on("sse.error"), "own.token = () => 't';"
    ),
    "handler of sse.close": Place([opening() + DRAIN], on("sse.close")),
    "handler of a final sse.close": Place([opening() + LOGOUT], on("sse.close")),
    "listener for the errors of handlers": Place(
        [LIVE],
        'addEventListener("error", (event) => { event.preventDefault(); close(); });'
        'client.on("message", () => { throw new Error("broken"); });',
    ),
    "loop": Place(
        [LIVE],
        'client.on("*", () => {}); (async () => {'
        ' for await (const { type } of client) { note(type); if (type === "message") close(); } })();',
    ),
    "token": Place([LIVE], before="own.token = close;"),
    "token, later": Place([LIVE], before="own.token = async () => { await null; close(); return 't'; };"),
    "token that fails": Place([], before="own.token = () => { close(); throw new Error('none'); };"),
    "token after a refusal": Place([DENIED, LIVE], before=SECOND_TOKEN),
    "token after sse.close": Place([opening() + EXPIRED, LIVE], before=SECOND_TOKEN),
    "token of a channel change": Place(
        [LIVE], 'client.on("sse.open", () => client.join("b"));', before=SECOND_TOKEN
    ),
    "headers": Place([LIVE], before="own.headers = () => { close(); return {}; };"),
    "constructor of EventSource": Place(
        [LIVE],
        before="own.EventSource = class extends EventSource {"
        " constructor(...all) { super(...all); close(); } };",
    ),
    "page goes offline": Place([LIVE], after_opening(fire("offline")) + at_state("waiting")),
    "page comes back": Place([LIVE], after_opening(fire("offline", "online")) + at_state("connecting")),
    "page comes back to a closed client": Place(
        [LIVE], after_opening(fire("offline") + "close();" + fire("online"))
    ),
    "page hides": Place(
        [LIVE],
        'document.addEventListener("visibilitychange", close);'
        + after_opening('document.dispatchEvent(new Event("visibilitychange"));'),
    ),
    "channels change": Place([LIVE], 'client.on("sse.open", () => { client.join("b"); close(); });'),
    "channels change by a new connection": Place(
        [LIVE, LIVE], 'client.on("sse.open", () => client.join("b"));' + at_state("connecting")
    ),
    "tabs: state open": Place([TAGGED], at_state("open"), options={"tabs": True}),
    "tabs: handler of sse.open": Place([TAGGED], on("sse.open"), options={"tabs": True}),
    "tabs: handler": Place([TAGGED], on("message"), options={"tabs": True}),
    "tabs: state waiting": Place(
        [TAGGED + Script.END], at_state("waiting"), options={"tabs": True, "minDelay": 9999, "maxDelay": 9999}
    ),
    "tabs: refused": Place([403], ON_ERROR, options={"tabs": True}),
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())
def test_nothing_happens_after_close(script: Script, visitor: Visitor, place: Place) -> None:
    page = visitor.page
    page.clock.install()
    page.goto(script.url)
    script.then(*place.answers)
    start = START.replace("BEFORE", place.before).replace("AFTER", place.after)
    page.evaluate(start, place.options)
    eventually_on(page, lambda: page.evaluate("isClosed"))
    page.evaluate(SOON)
    requests = len(script.requests)
    page.clock.fast_forward(120_000)
    page.evaluate(SOON)
    assert page.evaluate("[client.state, later]") == ["closed", []]
    # A request that was under way when the client was closed may still have arrived.
    assert len(script.requests) == requests <= len(place.answers)
    visitor.expect_network_errors()


def test_a_later_listener_does_not_get_what_the_close_has_overtaken(script: Script, visitor: Visitor) -> None:
    script.then(LOST)
    visitor.page.goto(script.url)
    listen = 'client.addEventListener("statechange", ({ detail }) => seen.push(detail.state));'
    visitor.page.evaluate(
        START.replace("BEFORE", "window.seen = [];").replace("AFTER", at_state("waiting") + listen), {}
    )
    eventually_on(visitor.page, lambda: visitor.page.evaluate("isClosed"))
    assert visitor.page.evaluate("seen") == ["open", "closed"]
    visitor.expect_network_errors()
