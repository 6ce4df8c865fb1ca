"""Writes any bytes into the keys of Redis and publishes them. Streams of other channels count their events.

`make fuzz` tries 100,000 inputs, or as many as FUZZ_INPUTS says. `make test` tries a few of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import redis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from flask_sse_push.brokers.counts import CountKey
from flask_sse_push.brokers.url import connect_broker
from flask_sse_push.config import Settings
from flask_sse_push.errors import BrokerUnavailable, InvalidEvent
from flask_sse_push.history.position import StartPoint
from flask_sse_push.hub.hub import Hub
from flask_sse_push.protocol.cursor import EARLIEST
from flask_sse_push.protocol.entry import Publication
from tests.support.deadline import eventually

from .test_commands import Record

#: How many inputs the test tries in all, and how many between two checks.
INPUTS = int(os.environ.get("FUZZ_INPUTS", "1000"))
AT_ONCE = 20
#: Keys that concern one channel, one id or one worker. `{inbox}` is the inbox of the hub.
KEYS = (
    "list:bad",
    "list:!control",
    "list:*",
    "once:an-id",
    "claim:ticket",
    "held:w1",
    "count:user",
    "answer:q",
)
SHARED_KEYS = ("workers",)
CHANNELS = ("live:bad", "live:!control", "inbox:{inbox}")


class Input(NamedTuple):
    """A command of Redis that another program sends. `EPOCH` and `NOW` stand for the right values."""

    command: str
    key: str
    values: tuple[bytes, ...]


_junk = st.one_of(
    st.binary(max_size=60), st.text(max_size=20).map(lambda text: text.encode("utf-8", "replace"))
)
_epoch = st.sampled_from([b"EPOCH", b"EPOCH", b"other", b"", b"a\rb", b"x" * 20])
_id = st.one_of(
    st.sampled_from(
        [b"NOW-5", b"NOW-5000000", b"NOW+5000000", b"NOW+99999999999", b"0", b"-1", b"1_0", b"9" * 30]
    ),
    st.integers(-(2**70), 2**70).map(lambda number: b"%d" % number),
)
_meta = st.one_of(
    st.sampled_from([b"-", b"t=5", b"t=x", b"m=bad", b"m=good", b"x=7", b"t=1&e=2", b"=&"]), _junk
)
_body = st.one_of(
    st.sampled_from(
        [b"data: x\n\n", b"data: x", b"data: x\n\nid: 1\n\n", b"event: sse.close\ndata: {}\n\n", b""]
    ),
    st.sampled_from([b'["disconnect", {"channel": 5}]', b'["channels", {"join": [[]]}]', b"[" * 50_000]),
    _junk,
)
_entry = st.builds(
    lambda epoch, id, prev, meta, body: b"%b %b %b %b\n%b" % (epoch, id, prev, meta, body),
    _epoch,
    _id,
    _id,
    _meta,
    _body,
)
_value = st.one_of(_junk, _entry, st.builds(lambda epoch, id: b"%b %b" % (epoch, id), _epoch, _id))
_key = st.sampled_from(KEYS)
_score = st.one_of(st.floats(allow_nan=False), st.integers(-(2**60), 2**60).map(float))
_field = st.one_of(st.sampled_from([b"", b"=", b"epoch", b"first", b"count", b"7", b"user\n7"]), _junk)
_inputs = st.one_of(
    st.builds(Input, st.just("PUBLISH"), st.sampled_from(CHANNELS), st.tuples(_value)),
    st.builds(Input, st.sampled_from(["RPUSH", "LPUSH"]), _key, st.tuples(_value)),
    st.builds(Input, st.just("SET"), _key, st.tuples(_value)),
    st.builds(Input, st.just("HSET"), _key, st.tuples(_field, _value)),
    st.builds(Input, st.just("SADD"), _key, st.tuples(_junk)),
    st.builds(Input, st.just("DEL"), _key, st.just(())),
    st.builds(Input, st.just("SET"), st.sampled_from(SHARED_KEYS), st.tuples(_value)),
    st.builds(
        lambda key, score, name: Input("ZADD", key, (repr(score).encode(), name)),
        st.sampled_from(SHARED_KEYS),
        _score,
        _junk,
    ),
)


class Site:
    """A worker with streams, and a publisher, on a server that another program writes to."""

    def __init__(self, url: str) -> None:
        prefix = f"fuzz-{uuid.uuid4().hex}"
        chosen = Settings(broker_url=url, prefix=prefix, probe=0.5, linger=0.0, history_size=50)
        self.base = "{" + prefix + ":0}:"
        self.client: Any = redis.Redis.from_url(url)
        self.broker = connect_broker(chosen)
        self.hub = Hub(connect_broker(chosen), chosen)
        self.epoch = self.broker.probe("nobody").epoch.encode()
        self.inbox = self.hub._shards.all[0].reader._inbox
        self.streams = [
            Record(self.hub, f"s{n}", None, *names) for n, names in enumerate((["good"], ["good", "fine"]))
        ]
        self.victim = Record(self.hub, "victim", "7", "bad")
        self.serial = self.serial_of_counts = 0
        self.inputs = 0

    def suffer(self, inputs: list[Input]) -> None:
        """Carries out some attacks, then checks that everything else goes on."""
        for each in inputs:
            key = self.base + each.key.format(inbox=self.inbox)
            with contextlib.suppress(redis.ResponseError):  # the key has another type from an earlier attack
                self.client.execute_command(each.command, key, *map(self._filled, each.values))
        self.inputs += len(inputs)
        self._check_streams()
        self._check_calls()
        self._check_new_streams()

    def _filled(self, value: bytes) -> bytes:
        now = time.time_ns() // 1000
        for sign, offset in ((b"-", -1), (b"+", 1)):
            head, found, rest = value.partition(b"NOW" + sign)
            if found:
                digits = rest[: len(rest) - len(rest.lstrip(b"0123456789"))]
                value = head + b"%d" % (now + offset * int(digits)) + rest[len(digits) :]
        return value.replace(b"EPOCH", self.epoch)

    def _check_streams(self) -> None:
        self.serial += 1
        text = f"event {self.serial}"
        body = b"data: %b\n\n" % text.encode()
        for name in ("good", "bad"):
            self.broker.publish([Publication(body, (name,))])
        for stream in self.streams:
            eventually(lambda stream=stream: text.encode() in stream.got, every=0.0005)  # type: ignore[misc]
            kinds = [
                line for line in stream.got.split(b"\n") if line.startswith((b"event: ", b"data: event"))
            ]
            assert [kind for kind in kinds if kind not in (b"event: sse.open", b"event: sse.heartbeat")] == [
                b"data: " + text.encode()
            ], stream.got
            assert not stream.ended
            stream.got = b""
        assert not self.victim.ended
        self.victim.got = b""

    def _check_calls(self) -> None:
        counts, key = self.broker.counts, CountKey("other", "7")
        self.serial_of_counts += 1
        for count in (1, 0):
            worker = f"w-{uuid.uuid4().hex[:8]}"
            assert counts.report(worker, 1, {key: count, CountKey("user", "7"): count}, 60).known
            assert counts.totals([key])[0] >= count
            assert counts.report(worker, 2, {key: 0, CountKey("user", "7"): 0}, 60).known
            assert worker in counts.workers()
            counts.retire(worker)
        assert counts.totals([key]) == [0]
        for call in self._calls_on_bad_keys():
            with contextlib.suppress(InvalidEvent):  # the damaged id says that it had several events
                call()
        assert self.broker.claim(f"ticket-{self.serial}", 60)

    def _calls_on_bad_keys(self) -> Iterator[Callable[[], object]]:
        counts = self.broker.counts
        yield lambda: self.broker.publish([Publication(b"data: once\n\n", ("bad",))], "an-id")
        yield lambda: self.broker.claim("ticket", 60)
        yield lambda: counts.report("w1", 1, {CountKey("user", "7"): 1}, 0.001)
        yield lambda: counts.reap("w1")
        yield lambda: counts.totals([CountKey("user", "7")])
        yield lambda: (counts.size("user"), counts.names("user", 10), counts.replies("q", 0))
        yield lambda: counts.add_replies("q", [b"{}"])
        yield lambda: self.broker.heads(100)

    def _check_new_streams(self) -> None:
        for names in (("bad",), ("good", "bad")):
            stream = Record.__new__(Record)
            super(Record, stream).__init__(f"new-{self.serial}-{names[0]}", None, names)
            stream.got, stream.ended, stream.hub = b"", False, self.hub
            self.hub.open(stream)
            stream.recovery = self.hub.recovery(stream.subscribed, StartPoint(EARLIEST))
            stream.follow()
            assert b"event: sse.open\n" in stream.got
            if "good" in names:
                assert f"data: event {self.serial}\n".encode() in stream.got
            stream.end(b"")
        if self.serial % 50 == 0:
            json.dumps(self.hub.stats())

    def close(self) -> None:
        self.hub.close()
        self.broker.close()
        self.client.delete(
            *[key for key in self.client.keys("*") if key.startswith(self.base.encode())] or ["x"]
        )
        self.client.close()


def test_no_bytes_in_a_key_or_on_a_channel_harm_other_channels(valkey_url: str) -> None:
    with contextlib.closing(Site(valkey_url)) as site:

        @settings(
            max_examples=INPUTS // AT_ONCE,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.explicit, Phase.generate, Phase.shrink],
        )
        @given(st.lists(_inputs, min_size=AT_ONCE, max_size=AT_ONCE))
        def attack(inputs: list[Input]) -> None:
            site.suffer(inputs)

        attack()
        print(f"{site.inputs} inputs")
        assert site.inputs >= INPUTS - AT_ONCE


def test_a_damaged_state_is_told_and_the_streams_go_on(valkey_url: str) -> None:
    """Keys of the whole broker: the streams get a reset at most once for each damage, then every event."""
    with contextlib.closing(Site(valkey_url)) as site:

        @settings(max_examples=max(30, INPUTS // 100), suppress_health_check=list(HealthCheck))
        @given(
            st.sampled_from(["state", "heads"]),
            st.sampled_from(["SET", "RPUSH", "SADD", "HSET", "ZADD", "DEL"]),
            st.sampled_from(
                [b"epoch", b"last", b"horizon", b"server", b"lineage", b"time", b"behind", b"bad", b""]
            ),
            _value,
            _score,
        )
        def damage(key: str, command: str, field: bytes, value: bytes, score: float) -> None:
            values = {"HSET": (field, site._filled(value)), "ZADD": (repr(score), field), "DEL": ()}
            name = site.base + key
            with contextlib.suppress(redis.ResponseError):
                site.client.execute_command(command, name, *values.get(command, (site._filled(value),)))
            site.serial += 1
            text = f"event {site.serial}".encode()
            for _ in range(
                3
            ):  # an event of the new epoch may be lost with the old one; then a reset tells so
                with contextlib.suppress(BrokerUnavailable):
                    site.broker.publish([Publication(b"data: %b\n\n" % text, ("good",))])

            def arrived(stream: Record) -> bool:
                return text in stream.got or b"event: sse.reset" in stream.got

            for stream in site.streams:
                eventually(lambda stream=stream: arrived(stream), every=0.0005)  # type: ignore[misc]
                assert not stream.ended
                stream.got = b""
            site.broker.publish([Publication(b"data: after %b\n\n" % text, ("good",))])
            for stream in site.streams:
                eventually(lambda stream=stream: b"after " + text in stream.got, every=0.0005)  # type: ignore[misc]
                stream.got = b""

        damage()
