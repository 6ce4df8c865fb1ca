"""Chromium itself decodes compressed streams, event by event."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flask_sse_push import MessageAnnouncer
from tests.support.processes import Gunicorn, gunicorn

from .conftest import Visit, eventually_on

PREFIX = "compressed"

BY_EVENTSOURCE = """() => {
  window.received = [];
  const source = new EventSource("/stream?channels=news");
  source.addEventListener("sse.open", () => received.push("open"));
  source.addEventListener("message", ({ data }) => received.push(data));
  source.addEventListener("sse.close", () => { received.push("close"); source.close(); });
}"""

BY_FETCH = """async () => {
  window.received = [];
  window.over = false;
  const response = await fetch("/stream?channels=news");
  window.encoding = response.headers.get("content-encoding");
  const read = async () => {
    let text = "";
    for await (const part of response.body.pipeThrough(new TextDecoderStream())) {
      text += part;
      const blocks = text.split("\\n\\n");
      text = blocks.pop();
      for (const block of blocks) {
        const data = block.match(/^data: (.*)$/m)[1];
        if (block.includes("event: sse.open")) received.push("open");
        else if (block.includes("event: sse.close")) received.push("close");
        else if (!block.includes("event: sse.heartbeat")) received.push(data);
      }
    }
    over = true;
  };
  read().catch((error) => { over = String(error); });
}"""


@pytest.fixture
def server(empty_valkey: str, log: Path) -> Iterator[Gunicorn]:
    env = {
        "SSE_PUSH_BROKER_URL": empty_valkey,
        "SSE_PUSH_HTTP_COMPRESSION": "true",
        "SSE_PUSH_HEARTBEAT": "0.3",
        "SSE_PUSH_PREFIX": PREFIX,
    }
    with gunicorn("tests.apps.plain:app", env=env, log=log) as running:
        yield running


@pytest.mark.parametrize("script", [BY_EVENTSOURCE, BY_FETCH], ids=["EventSource", "fetch"])
def test_chromium_reads_each_event_when_it_arrives(
    server: Gunicorn, empty_valkey: str, visit: Visit, script: str
) -> None:
    announcer = MessageAnnouncer.from_url(empty_valkey, SSE_PUSH_PREFIX=PREFIX)
    visitors = [visit(), visit()]
    received = ["open"]
    for visitor in visitors:
        visitor.page.goto(server.url)
        visitor.page.evaluate(script)
        eventually_on(visitor.page, lambda page=visitor.page: page.evaluate("received.length") == 1)  # type: ignore[misc]
    for n in range(12):
        received.append(f"event {n} " + "like the others " * 10)
        announcer.publish(received[-1], channel="news")
        for visitor in visitors:  # nothing delays an event until the next one
            page = visitor.page
            eventually_on(page, lambda page=page: page.evaluate("received.length") == len(received))  # type: ignore[misc]
        if n == 6:
            visitors[0].page.wait_for_timeout(800)  # heartbeats make the streams differ
    for visitor in visitors:
        assert visitor.page.evaluate("received") == received
    if script is BY_FETCH:
        assert visitors[0].page.evaluate("encoding") == "gzip"
    server.process.terminate()
    for visitor in visitors:
        page = visitor.page
        eventually_on(page, lambda page=page: page.evaluate("received.at(-1)") == "close")  # type: ignore[misc]
        if script is BY_FETCH:
            eventually_on(page, lambda page=page: page.evaluate("over") is True)  # type: ignore[misc]
        visitor.expect_network_errors()
