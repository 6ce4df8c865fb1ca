"""Networks that hold streams back: the client changes to short streams, and loses nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from playwright.sync_api import Browser, Page

from tests.support.holding_proxy import HoldingProxy
from tests.support.nginx import nginx_before

from .conftest import PATIENCE, Counting, eventually_on
from .plain import Server, server

__all__ = ["server"]

LISTEN = """async ([channels, options]) => {
  const { PushClient } = await import("/stream/client/push-client.js");
  window.received = [];
  window.modes = [];
  const defaults = { openTimeout: 1000, minDelay: 50, tabs: false };
  window.client = new PushClient(`/stream?channels=${channels}`, { ...defaults, ...options });
  client.on("message", ({ data }) => received.push(data));
  client.addEventListener("statechange", ({ detail }) => detail.state === "open" && modes.push(detail.mode));
}"""

#: Lets nginx buffer and compress responses, whatever the app says.
BUFFERING = """proxy_buffering on; proxy_ignore_headers X-Accel-Buffering;
            gzip on; gzip_types *; gzip_min_length 1;"""


class Client(NamedTuple):
    """A page with a client."""

    page: Page

    def numbers(self) -> list[Any]:
        return list(self.page.evaluate("received"))

    def mode(self) -> str:
        return str(self.page.evaluate("client.mode"))

    def warnings(self, part: str) -> int:
        """Returns how many warnings in the console have this text in them."""
        return sum(part in message.text for message in self.page.console_messages())


Open = Callable[..., Client]


@pytest.fixture
def listen(chromium: Browser) -> Iterator[Open]:
    """Returns a function that opens a page of a site, and a client in it."""
    context = chromium.new_context()
    context.set_default_timeout(PATIENCE)

    def opened(url: str, channels: str = "a", **options: Any) -> Client:
        page = context.new_page()
        page.goto(url)
        page.evaluate(LISTEN, [channels, options])
        return Client(page)

    yield opened
    context.close()


def gets_each_once(client: Client, counting: Counting) -> None:
    """Waits until the client has all numbers, each once and in order."""
    eventually_on(client.page, lambda: len(client.numbers()) >= counting.count)
    assert client.numbers() == counting.numbers()


PROXIES: dict[str, Callable[[Path, int], AbstractContextManager[Any]]] = {
    "whole responses": lambda folder, port: HoldingProxy(port, hold=math.inf),
    "64 kB": lambda folder, port: HoldingProxy(port, hold=65536),
    "one whole response at a time": lambda folder, port: HoldingProxy(port, hold=math.inf, at_once=1),
    "nginx": lambda folder, port: nginx_before(port, folder, directives=BUFFERING),
}


@pytest.mark.parametrize("proxy", PROXIES)
def test_behind_a_proxy_that_buffers_every_event_comes_once(
    server: Server, listen: Open, tmp_path: Path, proxy: str
) -> None:
    with PROXIES[proxy](tmp_path, server.gunicorn.port) as started:
        channel = f"proxy:{proxy.replace(' ', '-')}"
        cursor = server.announcer.publish("before", channel=channel)
        client = listen(getattr(started, "url", started), channel, lastEventId=cursor)
        with Counting(server.announcer, channel, every=0.05) as counting:
            eventually_on(client.page, lambda: len(client.numbers()) > 20)
        gets_each_once(client, counting)
        assert client.page.evaluate("modes") == ["poll"]
        assert client.warnings("holds streams back") == 1


def test_a_stream_that_is_cut_again_and_again_stays_a_stream(server: Server, listen: Open) -> None:
    with HoldingProxy(server.gunicorn.port, cut_after=0.7) as proxy:
        client = listen(proxy.url, "cut", lastEventId=server.announcer.publish("before", channel="cut"))
        with Counting(server.announcer, "cut", every=0.05) as counting:
            eventually_on(client.page, lambda: client.page.evaluate("client.stats.connects") > 2)
        gets_each_once(client, counting)
        assert client.mode() == "stream"


def test_all_that_a_stream_can_do_works_with_short_streams(server: Server, listen: Open) -> None:
    announcer = server.announcer
    with HoldingProxy(server.gunicorn.port, hold=math.inf) as proxy:
        client = listen(proxy.url, "some", transport="fetch", batch=50)
        eventually_on(client.page, lambda: client.mode() == "poll")
        client.page.evaluate("client.join('more')")
        eventually_on(client.page, lambda: proxy.count("poll=25") > 0 and "more" in proxy.requests[-1])
        announcer.publish(["x" * 3000], channel="more", compress="auto")
        announcer.publish_many([{"data": n, "channel": "some"} for n in range(3)])
        eventually_on(client.page, lambda: len(client.numbers()) == 4)
        assert client.numbers() == [["x" * 3000], 0, 1, 2]
        client.page.evaluate("client.leave('more')")
        eventually_on(client.page, lambda: "more" not in proxy.requests[-1])
        announcer.publish("not heard", channel="more")
        announcer.publish(3, channel="some")
        eventually_on(client.page, lambda: len(client.numbers()) == 5)
        assert client.numbers()[-1] == 3
        assert client.page.evaluate("client.state") == "open"
        client.page.evaluate("client.close()")
        eventually_on(client.page, lambda: server.listening() == [])


def test_the_next_page_knows_that_the_network_holds_streams_back(server: Server, listen: Open) -> None:
    with HoldingProxy(server.gunicorn.port, hold=math.inf) as proxy:
        client = listen(proxy.url, "next", transport="fetch")
        eventually_on(client.page, lambda: client.mode() == "poll")
        before = len(proxy.requests)
        client.page.reload()
        client.page.evaluate(LISTEN, [["next"], {"transport": "fetch"}])
        eventually_on(client.page, lambda: client.page.evaluate("client.state") == "open")
        streams = [line for line in proxy.requests[before:] if "/stream?" in line]
        assert all("poll=" in line for line in streams)


def test_the_client_goes_back_to_a_stream_when_the_network_lets_it_through(
    server: Server, listen: Open
) -> None:
    with HoldingProxy(server.gunicorn.port, hold=math.inf) as proxy:
        client = listen(proxy.url, "back", lastEventId=server.announcer.publish("before", channel="back"))
        eventually_on(client.page, lambda: client.mode() == "poll")
        with Counting(server.announcer, "back", every=0.05) as counting:
            eventually_on(client.page, lambda: len(client.numbers()) > 3)
            proxy.hold = 0
            client.page.context.set_offline(True)
            eventually_on(client.page, lambda: client.page.evaluate("client.state") == "waiting")
            client.page.context.set_offline(False)
            eventually_on(client.page, lambda: client.mode() == "stream")
            seen = len(client.numbers())
            eventually_on(client.page, lambda: len(client.numbers()) > seen + 3)
        gets_each_once(client, counting)
        assert client.page.evaluate("modes.at(-1)") == "stream"
        assert client.page.evaluate("sessionStorage.length") == 0


def test_the_app_chooses_the_mode(server: Server, listen: Open) -> None:
    with HoldingProxy(server.gunicorn.port) as proxy:
        for transport in ({}, {"transport": "fetch"}):
            client = listen(proxy.url, "chosen", mode="poll", **transport)
            client.page.wait_for_function("modes.includes('poll')")
            assert client.warnings("holds streams back") == 0
        before = proxy.count("poll=")
        assert proxy.count("/stream?") == before
        proxy.hold = math.inf
        client = listen(proxy.url, "chosen", mode="stream", openTimeout=200)
        eventually_on(client.page, lambda: client.page.evaluate("client.stats.errors") > 3)
        assert client.mode() == "stream"


def test_tabs_share_one_client_with_short_streams(server: Server, listen: Open) -> None:
    with HoldingProxy(server.gunicorn.port, hold=math.inf) as proxy:
        cursor = server.announcer.publish("before", channel="tabs")
        tabs = [listen(proxy.url, "tabs", tabs=True, lastEventId=cursor) for _ in range(3)]
        eventually_on(tabs[0].page, lambda: server.listening() == [{"tabs"}])
        with Counting(server.announcer, "tabs", every=0.1) as counting:
            eventually_on(tabs[0].page, lambda: all(len(tab.numbers()) > 10 for tab in tabs))
        for tab in tabs:
            gets_each_once(tab, counting)
            assert tab.mode() == "poll"
        assert len(server.listening()) <= 1
