"""Publishers follow a primary that moves, even if the former primary still answers."""

from __future__ import annotations

import uuid
from urllib.parse import urlsplit

import pytest
import redis

from flask_sse_push.brokers.redis import primary
from flask_sse_push.brokers.redis.broker import RedisBroker
from flask_sse_push.brokers.redis.client import BrokerSettings
from flask_sse_push.brokers.redis.primary import Address, Primary, clients_of
from flask_sse_push.config import Settings
from flask_sse_push.protocol.entry import Publication


class Moving(Primary):
    """A primary whose address the test changes."""

    def __init__(self, url: str) -> None:
        super().__init__(5)
        self.url = url

    def find(self) -> Address:
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or 0


def publish(broker: RedisBroker, text: str) -> None:
    broker.publish([Publication(b"data: %b\n\n" % text.encode(), ("a",))])


def test_the_next_event_after_a_recheck_goes_to_the_new_primary(
    valkey_url: str, redis7_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(primary, "RECHECK", -1.0)
    settings = BrokerSettings(Settings().policies, f"test-{uuid.uuid4().hex}", 5)
    moving = Moving(valkey_url)
    broker = RedisBroker(clients_of(lambda: moving, {"ssl": False}, settings), *settings.of_broker)
    publish(broker, "1")
    publish(broker, "2")
    moving.url = redis7_url
    publish(broker, "3")
    broker.close()
    texts = []
    for url in (valkey_url, redis7_url):
        with redis.Redis.from_url(url) as client:
            entries = client.lrange(f"{broker.base}list:a", 0, -1)
            texts.append([each.split(b"data: ")[1].strip() for each in entries])
            client.delete(*client.keys(f"{broker.base}*"))
    assert texts == [[b"1", b"2"], [b"3"]]
