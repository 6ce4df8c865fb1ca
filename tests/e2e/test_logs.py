"""gunicorn's workers log as JSON: the life of a stream from its opening to the drain."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.support.stream import Stream

from .conftest import Serve


def test_a_stream_from_opening_to_drain(
    serve: Serve, http: httpx.Client, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSE_PUSH_LOG_JSON", "1")
    server = serve(drain=0.2, log_totals=1)
    with Stream(f"{server.url}/stream?channels=a") as stream:
        stream.next_of("sse.open")
        for n in range(3):
            http.post(f"{server.url}/publish", json={"data": f"text {n} that stays out", "channel": "a"})
            stream.next_of("message")
        assert server.stop() == 0
        assert stream.next_of("sse.close").json()["reason"] == "drain"
    text = server.log.read_text()
    told: dict[str, dict[str, Any]] = {}
    for line in text.splitlines():
        if line.startswith("{"):
            found = json.loads(line)
            told[found.get("event", "")] = found
    assert told["stream_opened"]["channels"] == ["a"]
    assert told["stream_opened"]["address"] == "127.0.0.1"
    assert told["drain"]["streams"] == 1
    closed = told["stream_closed"]
    assert (closed["reason"], closed["events"]) == ("drain", 3)
    assert closed["bytes"] > 3 * len("text 0 that stays out")
    assert closed["duration"] > 0
    assert "that stays out" not in text
