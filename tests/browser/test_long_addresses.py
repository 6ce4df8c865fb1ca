"""A page listens to more channels than the address of a request can name, on the real server."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, Request

from tests.support.nginx import nginx_before
from tests.support.proxy import Proxy

from .conftest import Visit, eventually_on
from .plain import Server, server

__all__ = ["server"]

#: As many channels as one stream may have, with the longest names: 10,000 characters.
NAMES = [f"{n}:".ljust(200, "x") for n in range(50)]

LISTEN = """async ([channels, options]) => {
  const { PushClient } = await import("/stream/client/push-client.js");
  window.received = [];
  window.problems = [];
  window.client = new PushClient(`/stream?channels=${channels}`, { minDelay: 50, ...options });
  client.on("message", ({ data }) => received.push(data));
  client.on("sse.reset", ({ data }) => problems.push(data));
  client.addEventListener("statechange", ({ detail }) => detail.status && problems.push(detail));
}"""


@pytest.fixture(params=["gunicorn", "nginx"])
def proxy(server: Server, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Proxy]:
    """A proxy that can cut connections. It leads to gunicorn, or to an nginx with default buffers."""
    with contextlib.ExitStack() as stack:
        port = server.gunicorn.port
        if request.param == "nginx":
            port = int(stack.enter_context(nginx_before(port, tmp_path)).rpartition(":")[2])
        yield stack.enter_context(Proxy(port))


def publish(server: Server, numbers: Iterator[int]) -> None:
    """Publishes an event to each channel."""
    for name in NAMES:
        server.announcer.publish(next(numbers), channel=name)


def wait_for(page: Page, count: int) -> None:
    """Waits until the page has received the events 0, 1, 2 … of all channels, each once and in order."""
    eventually_on(page, lambda: page.evaluate("received.length") >= count)
    assert page.evaluate("received") == list(range(count))
    assert page.evaluate("problems") == []


def note_streams(page: Page) -> list[str]:
    """Returns a list that will have the methods of all requests for a stream."""
    methods: list[str] = []

    def note(request: Request) -> None:
        if urlsplit(request.url).path == "/stream":
            methods.append(request.method)

    page.on("request", note)
    return methods


def test_a_page_joins_so_many_channels_and_gets_every_event_after_a_cut(
    server: Server, proxy: Proxy, visit: Visit
) -> None:
    visitor, numbers = visit(), iter(range(1000))
    page = visitor.page
    methods = note_streams(page)
    page.goto(f"http://127.0.0.1:{proxy.port}/")
    page.evaluate(LISTEN, [NAMES[0], {}])
    eventually_on(page, lambda: page.evaluate("client.state") == "open")
    for begin in range(1, len(NAMES), 10):
        page.evaluate("names => client.join(...names)", NAMES[begin : begin + 10])
    server.wait_for_streams(page, set(NAMES))
    publish(server, numbers)
    wait_for(page, 50)
    assert methods == ["GET"]
    for cut in range(1, 4):
        assert proxy.cut()
        publish(server, numbers)
        wait_for(page, 50 + 50 * cut)
    assert page.evaluate("client.state") == "open"
    assert set(methods[1:]) == {"POST"}
    page.evaluate("names => client.leave(...names)", NAMES[1:])
    server.wait_for_streams(page, {NAMES[0]})
    page.evaluate("client.close()")
    visitor.expect_network_errors()


@pytest.mark.parametrize(
    "options", [{}, {"transport": "fetch"}, {"tabs": True}], ids=["auto", "fetch", "tabs"]
)
def test_a_page_opens_a_stream_with_so_many_channels(
    server: Server, proxy: Proxy, visit: Visit, options: dict[str, Any]
) -> None:
    visitor, numbers = visit(), iter(range(1000))
    page = visitor.page
    methods = note_streams(page)
    page.goto(f"http://127.0.0.1:{proxy.port}/")
    page.evaluate(LISTEN, [",".join(NAMES), options])
    eventually_on(page, lambda: page.evaluate("client.state") == "open")
    server.wait_for_streams(page, set(NAMES))
    for turn in range(1, 4):
        publish(server, numbers)
        wait_for(page, 50 * turn)
        assert proxy.cut()
    assert set(methods) == {"POST"}
    page.evaluate("client.close()")
    visitor.expect_network_errors()


def test_a_client_ignores_events_plain_and_says_so(server: Server, visit: Visit) -> None:
    page, said = visit().page, list[str]()
    page.on("console", lambda message: said.append(message.text))
    page.goto(server.url)
    page.evaluate(LISTEN, ["a&events=plain", {}])
    eventually_on(page, lambda: page.evaluate("client.state") == "open")
    assert [text for text in said if "ignores events=plain" in text]
    page.evaluate("client.close()")


def test_an_address_that_stays_too_long_is_final(server: Server, visit: Visit) -> None:
    visitor = visit()
    page = visitor.page
    page.goto(server.url)
    page.evaluate(LISTEN, ["a&pad=" + "x" * 5000, {}])
    eventually_on(page, lambda: page.evaluate("client.state") == "closed")
    assert page.evaluate("[problems.length, problems[0].reason, problems[0].status]") == [1, "refused", 414]
    visitor.expect_network_errors()
