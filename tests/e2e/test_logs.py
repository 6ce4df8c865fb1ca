"""JSON logs of a gunicorn worker, from the opening of a stream to the drain."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.support.stream import Stream

from .conftest import Serve


def test_opening_close_and_drain_are_logged_as_json(
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
    records: dict[str, dict[str, Any]] = {}
    for line in text.splitlines():
        if line.startswith("{"):
            found = json.loads(line)
            records[found.get("event", "")] = found
    assert records["stream_opened"]["channels"] == ["a"]
    assert records["stream_opened"]["address"] == "127.0.0.1"
    assert records["drain"]["streams"] == 1
    closed = records["stream_closed"]
    assert (closed["reason"], closed["events"]) == ("drain", 3)
    assert closed["bytes"] > 3 * len("text 0 that stays out")
    assert closed["duration"] > 0
    assert "that stays out" not in text
