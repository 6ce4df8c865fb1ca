"""Every broker behind one factory, so that one test body serves them all."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest

from flask_sse_push.brokers.base import Broker
from flask_sse_push.brokers.url import connect_broker
from flask_sse_push.config import Settings

#: Makes a broker with nothing in it: `make(history_size=5)`. The settings are those of `Settings`.
MakeBroker = Callable[..., Broker]


def url_of(name: str, request: pytest.FixtureRequest) -> str:
    """The URL of a broker by name; starts its server when it is asked for first."""
    return "memory://" if name == "memory" else str(request.getfixturevalue(f"{name}_url"))


@pytest.fixture(params=["memory", "valkey", "redis7"])
def make_broker(request: pytest.FixtureRequest) -> Iterator[MakeBroker]:
    """Makes brokers of one kind; each has a prefix of its own, and is closed after the test."""
    url = url_of(request.param, request)
    made: list[Broker] = []

    def make(**settings: object) -> Broker:
        prefix = f"test-{uuid.uuid4().hex}"
        made.append(connect_broker(Settings(broker_url=url, prefix=prefix, **settings)))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for broker in made:
        broker.close()


@pytest.fixture
def broker(make_broker: MakeBroker) -> Broker:
    """A broker with the default bounds."""
    return make_broker()


@pytest.fixture(params=["valkey", "redis7"])
def redis_url(request: pytest.FixtureRequest) -> str:
    """A Redis or Valkey for tests that look behind the broker's back."""
    return url_of(request.param, request)
