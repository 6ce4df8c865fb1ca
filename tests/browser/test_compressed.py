"""Chromium decodes compressed streams by itself, event by event."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flask_sse_push import MessageAnnouncer
from tests.support.processes import Gunicorn, gunicorn

from .conftest import Visit, eventually_on

PREFIX = "compressed"

BY_EVENTSOURCE = """() => {
  window.heard = [];
  const source = new EventSource("/stream?channels=news");
  source.addEventListener("sse.open", () => heard.push("open"));
  source.addEventListener("message", ({ data }) => heard.push(data));
  source.addEventListener("sse.close", () => { heard.push("close"); source.close(); });
}"""

BY_FETCH = """async () => {
  window.heard = [];
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
        if (block.includes("event: sse.open")) heard.push("open");
        else if (block.includes("event: sse.close")) heard.push("close");
        else if (!block.includes("event: sse.heartbeat")) heard.push(data);
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
def test_chromium_reads_each_event_when_it_comes(
    server: Gunicorn, empty_valkey: str, visit: Visit, script: str
) -> None:
    announcer = MessageAnnouncer.from_url(empty_valkey, SSE_PUSH_PREFIX=PREFIX)
    visitors = [visit(), visit()]
    heard = ["open"]
    for visitor in visitors:
        visitor.page.goto(server.url)
        visitor.page.evaluate(script)
        eventually_on(visitor.page, lambda page=visitor.page: page.evaluate("heard.length") == 1)  # type: ignore[misc]
    for n in range(12):
        heard.append(f"event {n} " + "like the others " * 10)
        announcer.publish(heard[-1], channel="news")
        for visitor in visitors:  # before the next one is published: nothing is held back
            page = visitor.page
            eventually_on(page, lambda page=page: page.evaluate("heard.length") == len(heard))  # type: ignore[misc]
        if n == 6:
            visitors[0].page.wait_for_timeout(800)  # heartbeats put the streams out of step
    for visitor in visitors:
        assert visitor.page.evaluate("heard") == heard
    if script is BY_FETCH:
        assert visitors[0].page.evaluate("encoding") == "gzip"
    server.process.terminate()
    for visitor in visitors:
        page = visitor.page
        eventually_on(page, lambda page=page: page.evaluate("heard.at(-1)") == "close")  # type: ignore[misc]
        if script is BY_FETCH:
            eventually_on(page, lambda page=page: page.evaluate("over") is True)  # type: ignore[misc]
        visitor.forgive_network_errors()
