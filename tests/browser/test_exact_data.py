"""Handlers get what the app published: text as that text, any other value as that value, on every way."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page

from flask_sse_push import payload

from .conftest import PATIENCE, eventually_on
from .plain import Server, server
from .script import Script, Started, event, note, noted
from .test_push_client import script, start, visitor

__all__ = ["script", "server", "start", "visitor"]

#: Text that a client could take for JSON, and text with white space, line ends and odd characters.
TEXTS = [
    *("42", "12345678901234567890", "null", "true", '{"a": 1}', "[1, 2]", '"quoted"', "1e999", "-0"),
    *("", " ", " 42", "42 ", "\t", "\t\t", "42\t", " 42 \t", '{"a": 1}\t', '"x"\t', "text\t", "\ttext\t"),
    *('"raw\ttab"\t', "01\t", "NaN\t", '"\\ud800"\t', "\ufeff42\t", "\u00a042\t", "[" * 500 + "\t", "{a\t"),
    *("42\n", "\n", "\n42\t", "42\n\t", "two\nlines", "{\n}", "data: x\n\nid: 7", "a\0b", "\0"),
    *("NaN", "Infinity", "-Infinity", "undefined", "é€😀\u2028\u2029", "\ufeff42", "\x0b42\x0c"),
]
#: Values that JSON can express.
VALUES: list[Any] = [
    *(None, True, False, 0, 42, -1.5, 1e22, 2**53, [], {}, [[]], [1, "42", None, "x\t"]),
    dict(payload.compress("x" * 5000)),  # looks like an envelope, but nobody has packed it for this event
    *({"a": {"b": "\t", "": []}}, {"text": "42"}, ["NaN", "\0", "é€😀\u2028"], {"compressed": True}),
]
#: Text and values that are long enough to be compressed.
LONG: list[Any] = [
    *("1" * 2000, "text " * 500, json.dumps(list(range(1000))), '{"a": 1}' + " " * 2000 + "\t", "x\t" * 1000),
    *(list(range(1000)), {"text": "42" * 1000}, ["\t"] * 500, 10**1500),
    json.dumps(payload.compress("x" * 5000)),
    payload.compress(["an envelope", "1" * 5000]),
]

NAMES = count()

#: Opens a client. `received` has the type of the data, the data and the text of each event.
LISTEN = """async ([address, options]) => {
  const { PushClient } = await import("/stream/client/push-client.js");
  window.received = [];
  window.client = new PushClient(address, options);
  for (const type of ["message", "value"])
    client.on(type, ({ data, text }) => received.push([typeof data, data, text]));
  client.on("sse.open", ({ data }) => { window.opening = data; });
  window.missed = [];
  client.on("sse.missed", ({ data }) => missed.push(...data.events.map((event) => event.data)));
}"""

Listen = Callable[..., Page]


@pytest.fixture
def listen(chromium: Browser, server: Server) -> Iterator[Listen]:
    """Returns a function that opens tabs with a client of an address. All tabs belong to one window."""
    context = chromium.new_context()
    context.set_default_timeout(PATIENCE)

    def open_tab(address: str, **options: Any) -> Page:
        page = context.new_page()
        page.goto(server.url)
        page.evaluate(LISTEN, [address, options])
        return page

    yield open_tab
    context.close()


def arrives(value: Any) -> list[Any]:
    """Returns the JavaScript type and the value that a handler must get for a published value."""
    if isinstance(value, str):
        return ["string", value]
    if isinstance(value, bool):
        return ["boolean", value]
    if isinstance(value, (int, float)):
        return ["number", float("inf") if value > 10**308 else float(value)]
    return ["object", value]


def check(page: Page, published: list[Any]) -> None:
    """Waits until the client has all events, and compares their data and text with what was published."""
    eventually_on(page, lambda: page.evaluate("received.length") >= len(published))
    received = page.evaluate("received")
    for value, (kind, data, _) in zip(published, received, strict=True):
        assert [kind, float(data) if kind == "number" else data] == arrives(value)
    for value, (_, _, text) in zip(published, received, strict=True):
        if isinstance(value, str) and not (text.endswith("\t") and text != value):
            assert text == value
        else:
            assert text.endswith("\t")
            assert json.loads(text) == value


def opened(page: Page) -> None:
    eventually_on(page, lambda: page.evaluate("client.state === 'open'"))


WAYS: dict[str, dict[str, Any]] = {
    "native": {"tabs": False},
    "fetch": {"transport": "fetch"},
    "batches": {"batch": 50},
    "batches by fetch": {"batch": 50, "transport": "fetch"},
    "tabs": {"tabs": True},
}


@pytest.mark.parametrize("way", WAYS)
def test_text_arrives_as_text_and_values_as_values(server: Server, listen: Listen, way: str) -> None:
    channel = f"exact{next(NAMES)}"
    pages = [listen(f"/stream?channels={channel}", **WAYS[way]) for _ in range(2)]
    for page in pages:
        opened(page)
    with server.announcer.batch() as batch:
        for value in TEXTS + VALUES:
            batch.publish(value, channel=channel)
    for page in pages:
        check(page, TEXTS + VALUES)


@pytest.mark.parametrize("way", WAYS)
def test_compressed_text_and_values_arrive_as_they_were(server: Server, listen: Listen, way: str) -> None:
    channel, published = f"exact{next(NAMES)}", [*LONG[:-2], "42", 42, LONG[-2]]
    pages = [listen(f"/stream?channels={channel}", **WAYS[way]) for _ in range(2)]
    for page in pages:
        opened(page)
    for value in published:
        server.announcer.publish(value, channel=channel, compress="auto")
    server.announcer.publish(LONG[-1], channel=channel)  # an envelope that the app has made
    for page in pages:
        check(page, [*published, payload.decompress(LONG[-1])])


@pytest.mark.parametrize("way", WAYS)
def test_events_of_the_history_arrive_as_they_were(server: Server, listen: Listen, way: str) -> None:
    channel = f"exact{next(NAMES)}"
    server.announcer.publish_many([{"data": value, "channel": channel} for value in TEXTS + VALUES])
    page = listen(f"/stream?channels={channel}", lastEventId="earliest", **WAYS[way])
    check(page, TEXTS + VALUES)


def test_events_of_a_joined_channel_arrive_as_they_were(server: Server, listen: Listen) -> None:
    channel = f"exact{next(NAMES)}"
    page = listen("/stream?channels=other")
    opened(page)
    page.evaluate(
        """channel => new Promise((done) => {
        client.on("sse.channels", done);
        client.join(channel);
    })""",
        channel,
    )
    for value in ("42", 42):
        server.announcer.publish(value, channel=channel)
    check(page, ["42", 42])


def test_missed_events_of_a_joined_channel_tell_text_from_json(server: Server, listen: Listen) -> None:
    channel = f"exact{next(NAMES)}"
    server.announcer.publish_many([{"data": value, "channel": channel} for value in ("42", 42)])
    page = listen("/stream?channels=other")
    opened(page)
    server.announcer.join(page.evaluate("opening.connection"), channel, last=2)
    eventually_on(page, lambda: page.evaluate("missed.length") == 2)
    assert page.evaluate("missed") == ["42", "42\t"]


def test_the_items_of_a_response_arrive_as_they_were(server: Server, listen: Listen) -> None:
    values = ["42", 42, '{"a": 1}', {"a": 1}, "", None, "5\t"]
    page = listen("/answer", method="POST", body=values)
    check(page, values)


def test_what_comes_over_http_arrives_as_it_was(server: Server, listen: Listen) -> None:
    channel, values = f"exact{next(NAMES)}", ["42", 42, "null", "5\t", ["5"], 12345678901234567890]
    page = listen(f"/stream?channels={channel}")
    opened(page)
    for value in values:
        httpx.post(f"{server.url}/publish", json={"data": value, "channel": channel}, trust_env=False)
    check(page, values)


def test_line_ends_arrive_as_line_feeds(server: Server, listen: Listen) -> None:
    channel = f"exact{next(NAMES)}"
    page = listen(f"/stream?channels={channel}")
    opened(page)
    server.announcer.publish("a\r\nb\rc\n", channel=channel)
    server.announcer.publish(["a\r\nb"], channel=channel)
    check(page, ["a\nb\nc\n", ["a\r\nb"]])


#: Leads the tabs as a page with an older version of the client does: it sends data as JSON, and says nothing
#: of marks. Each new tab says hello, and gets the opening in answer.
OLDER_LEADER = """([name, cursor]) => new Promise((leads) => {
  const bus = new BroadcastChannel(name);
  const send = (content) => bus.postMessage({ page: "older", term: 1, ...content });
  bus.onmessage = ({ data }) => {
    if (data.kind !== "hello") return;
    const opening = { connection: "c", heartbeat: 15, resumed: false };
    send({ kind: "wanted", channels: [] }); // so the tab has somebody to share with
    send({ kind: "leader", open: true, channels: ["older"], cursor, ...opening });
  };
  window.publish = (value, id) => {
    send({ kind: "event", type: "message", data: JSON.stringify(value), id, channels: ["older"] });
  };
  navigator.locks.request(name, () => new Promise(leads)); // holds the lock while the page lives
})"""

#: With no timer, a tab never asks its leader for an answer. So it never replaces a leader that answers late.
NO_CHECKS = "window.setInterval = () => 0"


def test_a_leader_of_an_older_version_may_lead_the_tabs(server: Server, listen: Listen) -> None:
    leader = listen("/stream?channels=other", tabs=False)
    opened(leader)
    name, cursor = f"sse-push:{server.url}/stream||", leader.evaluate("client.lastEventId")
    leader.evaluate(OLDER_LEADER, [name, cursor])
    leader.context.add_init_script(NO_CHECKS)
    page = listen("/stream?channels=older", tabs=True)
    opened(page)  # by a connection of its own, whose server marks JSON
    server.wait_for_streams(page, {"other"})
    values = [{"a": 1}, 42, "", "text", None, ["5\t"]]
    for n, value in enumerate(values):
        leader.evaluate("([value, id]) => publish(value, id)", [value, f"older-{n}"])
    eventually_on(page, lambda: page.evaluate("received.length") >= len(values))
    assert [one[1] for one in page.evaluate("received")] == values


# -- servers that do not mark JSON --------------------------------------------------------------------------

UNMARKED = event("42") + event('{"a": 1}') + event("text") + event("7\t")


@pytest.mark.parametrize("options", [{}, {"transport": "fetch"}], ids=["native", "fetch"])
@pytest.mark.parametrize(
    ("opening", "data"),
    [
        ("", [42, {"a": 1}, "text", 7]),
        (event("{}", "sse.open", "e-1"), [42, {"a": 1}, "text", 7]),
        (event("{}\t", "sse.open", "e-1"), ["42", '{"a": 1}', "text", 7]),
    ],
    ids=["foreign", "older", "marking"],
)
def test_data_is_parsed_by_guess_only_if_the_server_does_not_mark_json(
    script: Script, start: Started, options: dict[str, Any], opening: str, data: list[Any]
) -> None:
    script.then(opening + UNMARKED)
    page = start(note("message"), **options)
    found = [one for one in noted(page, len(data)) if "data" in one]
    assert [one["data"] for one in found] == data
    assert [one["text"] for one in found] == ["42", '{"a": 1}', "text", "7\t"]
