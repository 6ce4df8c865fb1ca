"""Makes each kind of broker with the same function, so that one test body runs against all of them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest

from flask_sse_push.brokers.base import Broker
from flask_sse_push.brokers.url import connect_broker
from flask_sse_push.config import Settings

#: Makes an empty broker: `make(history_size=5)`. Takes the fields of `Settings` as keywords.
MakeBroker = Callable[..., Broker]


def url_of(name: str, request: pytest.FixtureRequest) -> str:
    """The URL of a broker, by name. The first call for a server starts it."""
    return "memory://" if name == "memory" else str(request.getfixturevalue(f"{name}_url"))


@pytest.fixture(params=["memory", "valkey", "redis7"])
def make_broker(request: pytest.FixtureRequest) -> Iterator[MakeBroker]:
    """Makes brokers of one kind. Each has its own prefix, and is closed after the test."""
    url = url_of(request.param, request)
    brokers: list[Broker] = []

    def make(**settings: object) -> Broker:
        prefix = f"test-{uuid.uuid4().hex}"
        brokers.append(connect_broker(Settings(broker_url=url, prefix=prefix, **settings)))  # type: ignore[arg-type]
        return brokers[-1]

    yield make
    for broker in brokers:
        broker.close()


@pytest.fixture
def broker(make_broker: MakeBroker) -> Broker:
    """A broker with the default limits."""
    return make_broker()


@pytest.fixture(params=["valkey", "redis7"])
def redis_url(request: pytest.FixtureRequest) -> str:
    """The URL of a Redis or Valkey, for tests that read or change the broker's keys directly."""
    return url_of(request.param, request)
