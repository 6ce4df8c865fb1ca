"""What do channel policies save in Redis, and what do they cost a publish? `python -m benchmarks.policies`.

Each user has a channel `user:<number>`. Two set-ups are compared:

- **today**: the settings' defaults, so 1000 events of each channel, kept for an hour;
- **policy**: `SSE_PUSH_CHANNELS = {"user:*": {"history": 50, "ttl": 86400}, …}` with the three patterns of
  `POLICIES`.

**Memory.** Each of `--channels` users gets the same number of events of about 200 bytes. Redis's own count
(`used_memory`) is read before and after; the keys that expire some seconds after a publish are removed.
Memory grows evenly with the channels, so it is also shown for 100,000 channels. The table has several numbers
of events, because a policy saves nothing for a user who got fewer events than both set-ups keep.

**Publishing.** Both set-ups, and the policy with a limit of bytes, publish one event per call to channels
whose histories are full. They take turns in short rounds, so that a busy machine disturbs all of them. The
result is the processor time of the publisher and of Redis for each event: the median over the rounds of the
ratio to `today` in the same round.

The exit code is 1 if the policy takes more than a tenth of today's memory for users who got 1000 events, or
if a publish takes more than `SLOWER` times today's time.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from redis import Redis

from flask_sse_push import MessageAnnouncer

from .redis_server import INSTALL, RedisServer, find_binary

#: The channel policies that are compared with the defaults.
POLICIES: Mapping[str, Any] = {
    "user:*": {"history": 50, "ttl": 86400},
    "ticks:*": {"history": 1, "batch_ms": 100, "public": True},
    "room:*": {"presence": True},
}
#: How many events each user gets.
EVENTS = (1, 10, 50, 200, 1000)
#: For how many channels the memory is shown.
SHOWN = 100_000
#: At most which share of today's memory the policy should take, and at most how much more time a publish.
SHARE, SLOWER = 0.1, 1.05
#: How many rounds of publishing, and how many events in each.
ROUNDS, ROUND = 40, 250
#: How many events one call stores while the histories are filled.
BATCH = 1000


#: The settings of each set-up that publishes.
SET_UPS: Mapping[str, Mapping[str, Any]] = {
    "today": {},
    "policy": POLICIES,
    "policy with bytes": {**POLICIES, "user:*": {**POLICIES["user:*"], "bytes": 10_000}},
}


class Cost(NamedTuple):
    """The processor time of one event, in microseconds."""

    publisher: float
    redis: float


def event(number: int) -> dict[str, Any]:
    """Returns the data of an event, about 170 bytes of JSON."""
    return {
        "id": number,
        "type": "comment",
        "title": f"Ada commented on order {number % 10_000}",
        "url": f"/orders/{number % 10_000}#comment-{number}",
        "text": "delivered to the neighbour, who signed for it",
        "read": False,
    }


@contextmanager
def redis_server() -> Iterator[Redis]:
    """Runs a Redis without persistence, and yields a client of it."""
    binary = find_binary(Path(sys.executable))
    if binary is None:
        raise SystemExit(INSTALL)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = RedisServer(binary, 0, folder / "redis.log")
        stack.callback(server.stop)
        client = Redis.from_url(server.url)
        stack.callback(client.close)
        yield client


def announcer(client: Redis, channels: Mapping[str, Any], prefix: str = "sse") -> MessageAnnouncer:
    port = client.connection_pool.connection_kwargs["port"]
    config = {"SSE_PUSH_CHANNELS": channels, "SSE_PUSH_PREFIX": prefix, "SSE_PUSH_PUBLISH_TIMEOUT": 30}
    return MessageAnnouncer.from_url(f"redis://127.0.0.1:{port}/0", **config)


def fill(client: Redis, publisher: MessageAnnouncer, channels: int, events: int) -> None:
    """Gives each channel so many events, and removes the keys that expire soon after the calls."""
    total, batch = channels * events, []
    for number in range(total):
        batch.append({"data": event(number), "type": "comment", "channel": f"user:{number % channels}"})
        if len(batch) == BATCH or number == total - 1:
            publisher.publish_many(batch)
            batch.clear()
    for key in client.scan_iter("*:once:*", count=10_000):
        client.delete(key)


def memory(channels: int, events: int, policies: Mapping[str, Any]) -> float:
    """Returns how many bytes of Redis each channel takes."""
    with redis_server() as client:
        publisher = announcer(client, policies)
        publisher.publish("warm", channel="other")
        before = client.info("memory")["used_memory"]
        fill(client, publisher, channels, events)
        after = client.info("memory")["used_memory"]
        publisher.close()
    return float(after - before) / channels


def compare_memory(channels: int, most: int) -> float:
    """Prints the memory of both set-ups. Returns the policy's share for users with the most events."""
    print(f"Redis memory for {SHOWN:,} user channels, measured with {channels:,} channels")
    print(f"{'events for each user':>20} {'today':>12} {'policy':>12} {'share':>8}")
    share = 0.0
    for events in (number for number in EVENTS if number <= most):
        today, policy = (memory(channels, events, each) for each in ({}, POLICIES))
        share = policy / today
        shown = (f"{each * SHOWN / 1e6:,.0f} MB" for each in (today, policy))
        print(f"{events:>20} {next(shown):>12} {next(shown):>12} {share:>8.3f}", flush=True)
    return share


def redis_seconds(client: Redis) -> float:
    used = client.info("cpu")
    return float(used["used_cpu_user"] + used["used_cpu_sys"])


def round_of(client: Redis, publisher: MessageAnnouncer, first: int) -> Cost:
    """Publishes one round of events, and returns what each costs."""
    redis_before, before = redis_seconds(client), time.process_time()
    for number in range(first, first + ROUND):
        publisher.publish(event(number), "comment", channel=f"user:{number % 10}")
    publisher_time, redis_time = time.process_time() - before, redis_seconds(client) - redis_before
    return Cost(publisher_time / ROUND * 1e6, redis_time / ROUND * 1e6)


def compare_publishing(rounds: int) -> float:
    """Prints what a publish costs. Returns by how much the policy is slower than today's defaults."""
    with redis_server() as client:
        publishers = {
            name: announcer(client, channels, f"set-up-{number}")
            for number, (name, channels) in enumerate(SET_UPS.items())
        }
        for publisher in publishers.values():
            fill(client, publisher, 10, 1000)
        costs: dict[str, list[Cost]] = {name: [] for name in publishers}
        for number in range(rounds):
            names = list(publishers)
            for name in names[number % len(names) :] + names[: number % len(names)]:
                costs[name].append(round_of(client, publishers[name], number * ROUND))
        for publisher in publishers.values():
            publisher.close()
    print(
        f"processor time of one publish, in µs; ratio to today in the same round, median of {rounds} rounds"
    )
    print(f"{'':>20} {'publisher':>12} {'Redis':>12} {'ratio':>8}")
    ratios = {}
    for name, found in costs.items():
        pairs = zip(found, costs["today"], strict=True)
        ratios[name] = statistics.median(sum(cost) / sum(today) for cost, today in pairs)
        publisher_cost, redis_cost = (statistics.median(each) for each in zip(*found, strict=True))
        print(f"{name:>20} {publisher_cost:>12.1f} {redis_cost:>12.1f} {ratios[name]:>8.3f}")
    return ratios["policy"]


def main() -> int:
    parser = argparse.ArgumentParser(description="What channel policies save in Redis, and what they cost.")
    parser.add_argument("--channels", type=int, default=500, help="how many users get events (500)")
    parser.add_argument(
        "--most", type=int, default=EVENTS[-1], help="at most how many events each gets (1000)"
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"rounds of publishing ({ROUNDS})")
    options = parser.parse_args()
    share = compare_memory(options.channels, options.most)
    slower = compare_publishing(options.rounds)
    print(
        f"goals: at most {SHARE} of the memory: {share:.3f}; publishing at most {SLOWER} times: {slower:.3f}"
    )
    return int((options.most >= EVENTS[-1] and share > SHARE) or slower > SLOWER)


if __name__ == "__main__":
    sys.exit(main())
