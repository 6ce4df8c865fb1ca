"""`?poll=0`: a stream that brings what there is, and ends at once."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from flask import Flask

from flask_sse_push import MessageAnnouncer
from flask_sse_push.transports import waiting
from tests.support.proxy import Proxy

from .conftest import MakeApp


def polled(app: Flask, cursor: str) -> str:
    """Returns what a short stream brings that ends at once."""
    query = {"channels": "a", "poll": "0", "last_event_id": cursor}
    return app.test_client().get("/stream", query_string=query).get_data(as_text=True)


def test_a_stream_that_ends_at_once_asks_the_broker_what_there_is(
    make_app: MakeApp, empty_valkey: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything reaches the worker late, as on a busy machine. Then the broker does not answer at all."""
    announcer = MessageAnnouncer.from_url(empty_valkey)
    with Proxy(urlsplit(empty_valkey).port or 0) as proxy:
        app, _ = make_app(broker_url=f"redis://127.0.0.1:{proxy.port}", public_channels="a")
        first = str(announcer.publish("first", channel="a"))
        assert "event: sse.heartbeat" in polled(app, first), "the worker now listens to the channel"
        proxy.replies.delay = 0.4
        announcer.publish("just now", channel="a")
        assert "data: just now\n" in polled(app, first)
        proxy.replies.freeze()
        monkeypatch.setattr(waiting, "BROKER_TIMEOUT", 0.3)
        assert "the broker does not answer; ask again" in polled(app, first)
