"""An app written for flask-sse works with only its import changed."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.support.processes import gunicorn
from tests.support.stream import Stream


@pytest.mark.parametrize("opened", [False, True])
def test_an_app_written_for_flask_sse(empty_valkey: str, log: Path, opened: bool) -> None:
    env = {"REDIS_URL": empty_valkey} | ({"SSE_PUSH_PUBLIC_CHANNELS": "sse,x"} if opened else {})
    with (
        gunicorn("tests.apps.flask_sse_app:app", env=env, log=log) as server,
        httpx.Client(base_url=server.url, trust_env=False, timeout=60) as http,
    ):
        assert http.get("/").text == "/stream /stream?channel=x"
        with Stream(f"{server.url}/stream") as stream:
            stream.next_of("sse.open")
            assert http.get("/hello").text == "Message sent!"
            greeting = stream.next()
            assert (greeting.type, greeting.json()) == ("greeting", {"message": "Hello!"})
        if opened:
            with Stream(f"{server.url}/stream?channel=x") as stream:
                stream.next_of("sse.open")
                http.get("/hello-x")
                assert stream.next().json() == {"message": "Hello x!"}
        else:
            refused = http.get("/stream", params={"channel": "x"})
            assert refused.status_code == 403
            assert "SSE_PUSH_PUBLIC_CHANNELS" in refused.json()["message"]
            assert "@sse.authorize" in refused.json()["message"]
