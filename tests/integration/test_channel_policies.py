"""Channel policies in an app: who may listen, batches and presence; and publishers outside the app."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis

from flask_sse_push import MessageAnnouncer
from flask_sse_push.brokers.redis import declared
from flask_sse_push.config import Settings
from flask_sse_push.testing import SSEClient, in_memory, published
from tests.support.deadline import eventually
from tests.support.processes import ROOT

from .conftest import MakeApp

POLICIES: dict[str, Any] = {
    "user:*": {"history": 50, "ttl": 86400},
    "ticks:*": {"history": 1, "batch_ms": 100, "public": True},
    "room:*": {"presence": True, "public": True},
    "news": {"public": False},
}
PUBLISH = """
import sys
from flask_sse_push import MessageAnnouncer
announcer = MessageAnnouncer.from_url(sys.argv[1])
for number in range(3):
    announcer.publish(number, channel="user:7")
"""


def test_a_policy_decides_who_may_listen_over_the_other_settings(make_app: MakeApp) -> None:
    app, _ = make_app(channels=POLICIES, public_channels="news,sse")
    client = app.test_client()

    def status(channel: str) -> int:
        response = client.get(f"/stream?channels={channel}", buffered=False)
        response.close()
        return response.status_code

    assert [status(name) for name in ("ticks:1", "room:1", "sse")] == [200, 200, 200]
    assert [status(name) for name in ("news", "user:7", "other")] == [403, 403, 403]


@pytest.mark.parametrize(
    ("config", "warns"),
    [
        ({"channels": {"user:8": {"public": True}}}, "'user:8' in SSE_PUSH_CHANNELS lets everybody listen"),
        ({"public_channels": "sse,user:*"}, "'user:*' in SSE_PUSH_PUBLIC_CHANNELS lets everybody listen"),
        ({"public_channels": "*"}, ""),
    ],
)
def test_a_setting_that_opens_the_channels_of_users_is_warned_of(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture, config: dict[str, Any], warns: str
) -> None:
    app, _ = make_app(**config)
    for _ in range(2):
        app.test_client().get("/stream?channels=user:8", buffered=False).close()
    found = [
        record.getMessage() for record in caplog.records if "lets everybody listen" in record.getMessage()
    ]
    assert len(found) == bool(warns)
    assert all(warns in each for each in found)


def test_the_events_of_a_channel_are_kept_and_batched_as_its_policy_says(make_app: MakeApp) -> None:
    app, sse = make_app()
    with in_memory(app, channels=POLICIES), SSEClient(app) as client, app.app_context():
        stream = client.open("ticks:1")
        for text in ("0", "1", "2"):
            sse.publish(text, channel="ticks:1")
        assert [item["data"] for item in stream.next("sse.batch").json()] == ["0", "1", "2"]
        assert [event.data for event in published(app, "ticks:1")] == ["2"]


def test_a_file_of_policies_counts_in_the_testing_kit_too(make_app: MakeApp, tmp_path: Path) -> None:
    path = tmp_path / "channels.json"
    path.write_text(json.dumps(POLICIES))
    app, sse = make_app()
    with in_memory(app, channels_file=str(path)), app.app_context():
        for number in range(3):
            sse.publish(number, channel="ticks:1")
        assert len(published(app, "ticks:1")) == 1


def test_a_publisher_outside_the_app_with_other_policies_is_found_out(
    make_app: MakeApp, empty_valkey: str, caplog: pytest.LogCaptureFixture
) -> None:
    app, sse = make_app(broker_url=empty_valkey, channels=POLICIES)
    early = MessageAnnouncer.from_url(empty_valkey, SSE_PUSH_HISTORY_SIZE=10)
    early.publish(1, channel="user:7")  # nobody knows yet that the app has other policies
    early.close()
    digest = Settings.load({"SSE_PUSH_CHANNELS": POLICIES}, {}).policies.history_digest
    with SSEClient(app) as client, redis.Redis.from_url(empty_valkey, decode_responses=True) as server:
        stream = client.open("room:1")
        eventually(lambda: server.hget("{sse:0}:state", "policies") == digest, 10)
        with app.app_context():
            sse.publish("from the app", channel="room:1")
        assert stream.next().data == "from the app"

        def publish(**env: str) -> str:
            command = [sys.executable, "-c", PUBLISH, empty_valkey]
            whole = {**os.environ, "PYTHONPATH": str(ROOT), **env}
            return subprocess.run(command, env=whole, capture_output=True, text=True, check=True).stderr

        assert publish(SSE_PUSH_CHANNELS=json.dumps(POLICIES)) == ""
        warning = publish(SSE_PUSH_HISTORY_SIZE="10")
        assert warning.count("keeps other histories than the app") == 1
        assert "user:*: no policy here, 50 events, 86400.0 s there" in warning
        same = MessageAnnouncer.from_url(empty_valkey, SSE_PUSH_CHANNELS=POLICIES)
        same.publish(1, channel="user:7")
        same.close()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("server", ["Werkzeug/3", None])
def test_a_worker_declares_its_policies_with_its_first_publish(
    make_app: MakeApp, empty_valkey: str, monkeypatch: pytest.MonkeyPatch, server: str | None
) -> None:
    """A request that names no server comes from a script or a test, which must not speak for the app."""
    monkeypatch.setattr(declared, "_seen", {})
    early = MessageAnnouncer.from_url(empty_valkey, SSE_PUSH_HISTORY_SIZE=10)
    early.publish(1, channel="user:7")
    early.close()
    app, sse = make_app(broker_url=empty_valkey, channels=POLICIES)
    app.add_url_rule("/publish", view_func=lambda: sse.publish(2, channel="user:7"))
    environ = {"SERVER_SOFTWARE": server} if server else {}
    assert app.test_client().get("/publish", environ_base=environ).status_code == 200
    digest = Settings.load({"SSE_PUSH_CHANNELS": POLICIES}, {}).policies.history_digest
    with redis.Redis.from_url(empty_valkey, decode_responses=True) as client:
        assert (client.hget("{sse:0}:state", "policies") == digest) is bool(server)
