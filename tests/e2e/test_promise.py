"""The delivery promise under load: real gunicorn workers, a real broker, clients that come and go."""

from __future__ import annotations

import json
import random
import threading
import time
from pathlib import Path

import pytest

from flask_sse_push import MessageAnnouncer
from tests.support.crowd import Client, Crowd
from tests.support.oracle import Ledger, judge, position
from tests.support.processes import gunicorn

CHANNELS = [f"room:{n}" for n in range(40)]


class Publisher(threading.Thread):
    """Publishes at a steady rate and keeps the ledger."""

    def __init__(
        self, url: str, ledger: Ledger, *, rate: float, seconds: float, chance: random.Random
    ) -> None:
        super().__init__(daemon=True)
        self._announcer = MessageAnnouncer.from_url(url)
        self._ledger = ledger
        self._rate = rate
        self._seconds = seconds
        self._chance = chance

    def run(self) -> None:
        start = time.monotonic()
        for n in range(int(self._rate * self._seconds)):
            time.sleep(max(0.0, start + n / self._rate - time.monotonic()))
            names = self._chance.sample(CHANNELS, 2 if n % 50 == 0 else 1)
            cursor = self._announcer.publish(json.dumps({"n": n, "pad": "x" * 150}), channel=names)
            self._ledger.note(cursor, names, n)
        self._announcer.close()


@pytest.mark.timeout(180)
def test_200_clients_cut_at_random_lose_and_double_nothing(empty_valkey: str, log: Path) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    ledger = Ledger()

    def some_channels(_: frozenset[str] = frozenset()) -> frozenset[str]:
        return frozenset(chance.sample(CHANNELS, 5))

    def now_and_then_others(channels: frozenset[str]) -> frozenset[str]:
        return some_channels() if chance.random() < 0.3 else channels

    env = {"SSE_PUSH_BROKER_URL": empty_valkey, "SSE_PUSH_HEARTBEAT": "2"}
    with gunicorn("tests.apps.plain:app", env=env, workers=2, log=log) as server:
        clients = [Client(some_channels()) for _ in range(200)]
        crowd = Crowd(server.port, clients, chance, life=(0.5, 6), pause=(0, 2), other=now_and_then_others)
        crowd.until(lambda: all(client.segments for client in clients), 20)
        publisher = Publisher(empty_valkey, ledger, rate=500, seconds=20, chance=random.Random(seed))
        publisher.start()
        crowd.until(lambda: not publisher.is_alive(), 60)
        crowd.stay()
        crowd.until(lambda: all(_has_all(client, ledger) for client in clients), 20)
        crowd.close()
    verdict = judge(ledger, [client.segments for client in clients])
    print(f"{len(ledger.events)} published, {crowd.cuts} cuts, {verdict}")
    assert verdict.clean(), verdict
    assert verdict.resets == 0
    assert len(ledger.events) == 10_000
    assert crowd.cuts > 500
    assert verdict.resumed > 500
    assert {status for client in clients for status in client.statuses} == {200}
    assert "Traceback" not in log.read_text()


def _has_all(client: Client, ledger: Ledger) -> bool:
    return client.connection is not None and position(client.cursor) >= ledger.newest(client.channels)
