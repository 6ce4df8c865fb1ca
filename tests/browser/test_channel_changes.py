"""A page joins and leaves channels on its open stream, on the real server."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page

from .conftest import Visit, eventually_on
from .plain import Server, server
from .script import Refusal, Script, Started, opening
from .test_push_client import script, start, visitor

__all__ = ["script", "server", "start", "visitor"]

LISTEN = """async (options) => {
  const { PushClient } = await import("/stream/client/push-client.js");
  window.received = [];
  window.client = new PushClient("/stream?channels=lobby", options);
  client.on("message", ({ data }) => received.push(data));
  client.on("sse.channels", ({ data }) => received.push(data.channels.sort().join()));
}"""


def wait_for(page: Page, text: str) -> None:
    eventually_on(page, lambda: text in page.evaluate("received"))


@pytest.mark.parametrize("options", [{}, {"transport": "fetch"}], ids=["EventSource", "fetch"])
def test_a_client_joins_and_leaves_channels_on_the_open_stream(
    server: Server, visit: Visit, options: dict[str, str]
) -> None:
    visitor = visit()
    page = visitor.page
    page.goto(server.url)
    page.evaluate(LISTEN, options)
    eventually_on(page, lambda: page.evaluate("client.state") == "open")
    server.announcer.publish("too early", channel="room:5")
    page.evaluate("client.join('room:5')")
    wait_for(page, "lobby,room:5")
    server.announcer.publish("hello", channel="room:5")
    wait_for(page, "hello")
    page.evaluate("client.leave('lobby')")
    wait_for(page, "room:5")
    server.announcer.publish("not received", channel="lobby")
    server.announcer.publish("bye", channel="room:5")
    wait_for(page, "bye")
    assert page.evaluate("received") == ["lobby,room:5", "hello", "room:5", "bye"]
    assert page.evaluate("[client.channels.join(), client.stats.connects]") == ["room:5", 1]
    visitor.expect_network_errors()


def test_a_refused_channel_leaves_the_stream_as_it_was(script: Script, start: Started) -> None:
    error = b'{"code": 1201, "message": "no"}'
    script.then(opening())
    script.channel_change = Refusal(403, {"Content-Type": "application/json"}, error)
    page = start("close")
    eventually_on(page, lambda: page.evaluate("client.state") == "open")
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    refused = "client.join('b').catch(({ status, error, message }) => [status, error.code, message])"
    assert page.evaluate(refused) == [403, 1201, "no"]
    assert page.evaluate("[client.channels.join(), client.state]") == ["a", "open"]
    assert len(script.requests) == 1
    assert f"PushClient: {script.url}/stream answered 403 (application/json). no" in said
