"""What is stored and sent if the Redis user may not send to all channels of a call."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from flask_sse_push import BrokerUnavailable, MessageAnnouncer
from flask_sse_push.brokers.redis import publish_call
from flask_sse_push.brokers.redis.scripts import script

#: In front of a script, hides the function that servers older than Redis 7 do not have.
HIDE = "local redis = setmetatable({acl_check_cmd = false}, {__index = redis})\n"

EVENTS = [{"data": "1", "channel": "a"}, {"data": "2", "channel": "b"}, {"data": "3", "channel": "a"}]


class Narrow:
    """An announcer whose Redis user may send to the channel `a` only."""

    def __init__(self, url: str) -> None:
        self.prefix = f"test-{uuid.uuid4().hex}"
        self._base = f"{{{self.prefix}:0}}"
        self._client: Any = redis.Redis.from_url(url, decode_responses=True)
        self.grant("reset", "on", ">secret", "+@all", "~*", f"&{self._base}:live:a")
        self.announcer = MessageAnnouncer.from_url(
            url.replace("://", f"://{self.prefix}:secret@"), SSE_PUSH_PREFIX=self.prefix
        )
        self._ear = self._client.pubsub()
        self._ear.psubscribe(f"{self._base}:live:*", self.prefix)
        for _ in range(2):
            assert self._ear.get_message(timeout=30)["type"] == "psubscribe"

    def grant(self, *rights: str) -> None:
        self._client.execute_command("ACL", "SETUSER", self.prefix, *rights)

    def grant_all(self) -> None:
        self.grant(f"&{self._base}:live:*")

    def keys(self) -> list[str]:
        return sorted(self._client.scan_iter(f"{self._base}:*"))

    def stored(self, channel: str) -> list[str]:
        return [
            each.split("data: ")[1].strip()
            for each in self._client.lrange(f"{self._base}:list:{channel}", 0, -1)
        ]

    def sent(self) -> list[str]:
        """The data of the live messages since the last call, each with its channel: `a 1`."""
        self._client.publish(self.prefix, "the end")
        found = []
        while (message := self._ear.get_message(timeout=30))["data"] != "the end":
            found.append(f"{message['channel'][-1]} {message['data'].split('data: ')[1].strip()}")
        return found

    def once_ttl(self) -> float:
        """How long Redis remembers the only call, in seconds."""
        (key,) = self._client.scan_iter(f"{self._base}:once:*")
        return float(self._client.pttl(key)) / 1000

    def close(self) -> None:
        self.announcer.close()
        self._ear.close()
        for key in self.keys():
            self._client.delete(key)
        self._client.execute_command("ACL", "DELUSER", self.prefix)
        self._client.close()


@pytest.fixture
def narrow(redis_url: str) -> Iterator[Narrow]:
    with contextlib.closing(Narrow(redis_url)) as narrow:
        yield narrow


def refused(publish: Callable[[], object]) -> str:
    with pytest.raises(BrokerUnavailable) as caught:
        publish()
    return str(caught.value)


@pytest.mark.parametrize("once", [None, "x1"])
def test_an_event_that_may_not_go_to_all_its_channels_goes_to_none(narrow: Narrow, once: str | None) -> None:
    for _ in range(2):
        error = refused(lambda: narrow.announcer.publish("ghost", channel=["a", "b"], id=once))
        assert "may not send to the channel 'b'" in error
        assert f"PUBLISH to '{{{narrow.prefix}:0}}:live:b'" in error
        assert "docs/redis.md" in error
    assert narrow.sent() == []
    assert narrow.keys() == []


@pytest.mark.parametrize("once", [None, "x1"])
def test_a_batch_with_a_refused_channel_stores_and_sends_nothing(narrow: Narrow, once: str | None) -> None:
    for _ in range(2):
        assert "the channel 'b'" in refused(lambda: narrow.announcer.publish_many(EVENTS, id=once))
    assert narrow.sent() == []
    assert narrow.keys() == []
    narrow.grant_all()
    cursors = narrow.announcer.publish_many(EVENTS, id=once)
    assert narrow.sent() == ["a 1", "b 2", "a 3"]
    if once:
        narrow.grant("resetchannels")
        assert narrow.announcer.publish_many(EVENTS, id=once) == cursors, "the repetition sends nothing"
    assert (narrow.stored("a"), narrow.stored("b")) == (["1", "3"], ["2"])


def test_a_user_without_the_command_stores_nothing(narrow: Narrow) -> None:
    narrow.grant("-publish")
    assert "the channel 'a'" in refused(lambda: narrow.announcer.publish("1", channel="a"))
    assert narrow.keys() == []


def test_a_server_that_cannot_be_asked_keeps_the_events_before_the_refused_one(
    narrow: Narrow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish_call, "script", lambda *names, first: HIDE + script(*names, first=first))
    refused(lambda: narrow.announcer.publish_many(EVENTS))
    refused(lambda: narrow.announcer.publish("4", channel=["a", "b"]))
    narrow.announcer.publish("5", channel="a")
    assert (narrow.stored("a"), narrow.stored("b")) == (["1", "5"], [])


@pytest.mark.parametrize(("timeout", "at_least"), [(0.5, 9), (2, 9), (600, 2999)])
def test_redis_remembers_a_call_for_several_times_the_publish_timeout(
    narrow: Narrow, redis_url: str, timeout: float, at_least: float
) -> None:
    announcer = MessageAnnouncer.from_url(
        redis_url, SSE_PUSH_PREFIX=narrow.prefix, SSE_PUSH_PUBLISH_TIMEOUT=timeout
    )
    with contextlib.closing(announcer):
        announcer.publish("1", channel="a")
    assert at_least < narrow.once_ttl() <= at_least + 1
