"""The app of docs/quickstart.md: two workers, a page, a button, and an event missed during a restart."""

from __future__ import annotations

from pathlib import Path

import httpx

from flask_sse_push import MessageAnnouncer
from tests.support.processes import ROOT, gunicorn
from tests.support.stream import Stream


def test_the_app_of_the_quick_start_works(empty_valkey: str, log: Path) -> None:
    options = ("--chdir", str(ROOT / "docs" / "examples"))
    env = {"SSE_PUSH_BROKER_URL": empty_valkey}
    with gunicorn("quickstart:app", *options, env=env, workers=2, log=log) as server:
        assert "PushClient" in httpx.get(server.url, trust_env=False).text
        with Stream(f"{server.url}/stream") as stream:
            stream.next_of("sse.open")
            cursor = httpx.post(f"{server.url}/hello", content="Hello!", trust_env=False).text
            event = stream.next_of("greeting")
            assert (event.json(), event.id) == ({"message": "Hello!"}, cursor)
    announcer = MessageAnnouncer.from_url(empty_valkey)
    announcer.publish({"message": "Hello from the shell"}, "greeting")
    announcer.close()
    with (
        gunicorn("quickstart:app", *options, env=env, workers=2, log=log) as server,
        Stream(f"{server.url}/stream", cursor=cursor) as stream,
    ):
        assert stream.next_of("greeting").json() == {"message": "Hello from the shell"}
