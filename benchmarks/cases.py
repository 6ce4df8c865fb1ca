"""The cases. Each takes a newly started peer and the sizes, and returns figures."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from .client import Client
from .peers import base
from .peers.base import HEARTBEAT_INTERVAL, Peer
from .peers.broadcaster.driver import Broadcaster
from .process import kernel_kb, open_files, rss_kb
from .work import CPU, Counters, forget_departed, settle, warm_up


@dataclass(frozen=True)
class Sizes:
    """The sizes of the cases. `small()` is for a smoke test: its figures mean little."""

    event: int = 200  # bytes of data
    steady_streams: int = 1000
    steady_seconds: float = 10
    burst_rounds: int = 3
    idle_streams: int = 8000
    storm_streams: int = 5000
    storm_missed: int = 100
    heartbeat_streams: int = 15000
    heartbeat_seconds: float = 2 * HEARTBEAT_INTERVAL
    groups: int = 5000
    groups_events: int = 20  # common events, 4 per second
    groups_own: int = 4  # events for each user
    users: int = 2000  # each with a channel of their own
    users_seconds: float = 10
    wide_streams: int = 200  # each with 50 channels
    publish_single: int = 2000
    publish_many: int = 20000
    churned: int = 600
    churn_idle: int = 5000
    crowd_streams: int = 100_000  # see crowd.py

    @classmethod
    def small(cls) -> Sizes:
        return cls(
            steady_seconds=3, burst_rounds=1, idle_streams=2000, storm_streams=1000, heartbeat_streams=2000,
            heartbeat_seconds=HEARTBEAT_INTERVAL, groups=1000, groups_events=8, groups_own=2,
            users=500, users_seconds=2, wide_streams=20,
            publish_single=500, publish_many=5000, churned=200, churn_idle=1000,
        )  # fmt: skip


def steady(peer: Peer, sizes: Sizes) -> Counters:
    """One channel, a steady rate of events: CPU per event and stream, and latency."""
    count = int(peer.rate * sizes.steady_seconds)
    return fan_out(peer, sizes.steady_streams, peer.path("bench"), count, peer.rate, sizes)


def one_stream(peer: Peer, sizes: Sizes) -> Counters:
    """One stream, a steady rate of events: what an event costs before any fan-out."""
    count = int(peer.rate * sizes.steady_seconds)
    figures = fan_out(peer, 1, peer.path("bench"), count, peer.rate, sizes)
    return {name: figures[name] for name in ("rate", "incomplete", "cpu_us", "p50_ms", "p99_ms")}


def fan_out(peer: Peer, streams: int, path: str, count: int, rate: float, sizes: Sizes) -> Counters:
    # The first round warms up the caches, the allocator and Node's compiler. The second round is measured.
    with Client(peer, streams, path=path, events=int(rate)) as client:
        peer.publish(int(rate), rate, sizes.event)
        client.wait()
    forget_departed(peer)
    with Client(peer, streams, path=path, events=count) as client:
        settle()
        cpu = CPU(peer)
        peer.publish(count, rate, sizes.event)
        report = client.wait()
        return {
            "rate": rate,
            "streams": report["opened"],
            "events": report["events"],
            "incomplete": report["streams"] - report["complete"],
            "cpu_us": cpu.seconds() * 1e6 / max(1, report["events"]),
            "p50_ms": report["p50_ms"],
            "p99_ms": report["p99_ms"],
        }


def burst(peer: Peer, sizes: Sizes) -> Counters:
    """Many events as fast as the publisher can send them: deliveries per second, from first to last."""
    rounds = [_one_burst(peer, sizes) for _ in range(sizes.burst_rounds)]
    return {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}


def _one_burst(peer: Peer, sizes: Sizes) -> Counters:
    forget_departed(peer)  # the clients of the previous round
    with Client(peer, sizes.steady_streams, events=peer.burst) as client:
        settle()
        cpu = CPU(peer)
        peer.publish(peer.burst, 0, sizes.event, batch=peer.burst)
        report = client.wait()
        return {
            "events": peer.burst,
            "incomplete": report["streams"] - report["complete"],
            "deliveries_per_s": report["deliveries_per_s"],
            # From the publisher's first stamp, so it includes the time of publishing.
            "deliveries_per_s_from_publish": report["events"] / max(1e-9, report["since_stamp_s"]),
            "cpu_us": cpu.seconds() * 1e6 / max(1, report["events"]),
            "p99_ms": report["p99_ms"],
            "client_busy": report["delivery_cpu_s"] / max(1e-9, report["delivery_s"]),
        }


def idle(peer: Peer, sizes: Sizes) -> Counters:
    """Resident memory of the server per idle stream, and the kernel's memory for one end of a connection.

    Both ends of each connection are on this machine, so the kernel's figure is divided by two.
    """
    warm_up(peer)
    streams = min(sizes.idle_streams, peer.max_streams)
    before, kernel = rss_kb(peer.pids()), kernel_kb()
    with Client(peer, streams):
        settle(3)
        return {
            "streams": streams,
            "kb_per_stream": (rss_kb(peer.pids()) - before) / streams,
            "kernel_kb_per_stream": (kernel_kb() - kernel) / streams / 2,
            "empty_kb": before,
        }


def handshake(peer: Peer, sizes: Sizes) -> Counters:
    """Opens streams, 200 at a time: CPU and seconds from connect to the first body byte."""
    warm_up(peer)
    streams = min(sizes.idle_streams, peer.max_streams)
    cpu = CPU(peer)
    with Client(peer, streams) as client:
        return {
            "streams": streams,
            "seconds": client.connect_seconds,
            "cpu_us": cpu.seconds() * 1e6 / streams,
        }


def storm(peer: Peer, sizes: Sizes) -> Counters:
    """All clients reconnect at once, and each has missed events: seconds until every client has all of them.

    The worker has not seen the channel yet, as after a restart.
    """
    warm_up(peer, "other")
    path, headers = peer.miss(sizes.storm_missed, sizes.event)
    calls = peer.redis.calls() if peer.redis else None
    cpu = CPU(peer)
    with Client(peer, sizes.storm_streams, path=path, headers=headers, events=sizes.storm_missed) as client:
        report = client.wait()
        figures: Counters = {
            "streams": report["opened"],
            "missed": sizes.storm_missed,
            "incomplete": report["streams"] - report["complete"],
            "seconds": report["all_complete_s"],
            "cpu_us_per_stream": cpu.seconds() * 1e6 / report["streams"],
        }
    if peer.redis and calls is not None:
        done = peer.redis.calls() - calls
        figures["redis_commands"] = {name: done[name] for name in sorted(done) if name != "info"}
    return figures


def heartbeat(peer: Peer, sizes: Sizes) -> Counters:
    """Streams that carry only heartbeats: the server's share of one core."""
    with Client(peer, sizes.heartbeat_streams, timeout=120) as client:
        settle(3)
        cpu = CPU(peer)
        if isinstance(peer, Broadcaster):
            peer.beat(sizes.heartbeat_seconds, HEARTBEAT_INTERVAL)
        else:
            time.sleep(sizes.heartbeat_seconds)
        share = cpu.share()
        report = client.finish()
        return {
            "streams": report["opened"],
            "lost": report["closed_by_server"],
            "cpu_percent": share * 100,
            "bytes_per_stream": report["bytes"] / report["streams"],
        }


def groups(peer: Peer, sizes: Sizes) -> Counters:
    """Each user listens to a private and a common channel; compared with the same users on one channel."""
    count, users = sizes.groups_events, sizes.groups
    crowd = fan_out(peer, users, peer.path("bench"), count, 4, sizes)
    common = fan_out(peer, users, peer.path("u.%d,bench"), count, 4, sizes)
    forget_departed(peer)
    with Client(peer, users, path=peer.path("u.%d,bench"), events=sizes.groups_own) as client:
        settle()
        cpu = CPU(peer)
        total = users * sizes.groups_own
        peer.publish(total, users / 2, sizes.event, channel="u.%d", spread=users, batch=50)
        report = client.wait()
        return {
            "streams": users,
            "incomplete": crowd["incomplete"] + common["incomplete"] + report["streams"] - report["complete"],
            "crowd_cpu_us": crowd["cpu_us"],
            "common_cpu_us": common["cpu_us"],
            "common_vs_crowd": common["cpu_us"] / crowd["cpu_us"],
            "own_cpu_us": cpu.seconds() * 1e6 / max(1, report["events"]),
            "common_p99_ms": common["p99_ms"],
            "own_p99_ms": report["p99_ms"],
        }


def users(peer: Peer, sizes: Sizes) -> Counters:
    """Each event goes to one user of many: CPU per event when the server sleeps between events, and when not.

    The last two figures: beside idle streams on 10,000 other channels, and with 50 channels for each stream.
    """
    own = peer.path("u.%d")
    wide = [f"w{number}.%d" for number in range(49)]
    slow = _to_users(peer, own, sizes.users, 20, sizes)
    fast = _to_users(peer, own, sizes.users, 300, sizes)
    with Client(peer, sizes.wide_streams, path=peer.path(",".join(["i.%d", *wide]))):
        beside = _to_users(peer, own, sizes.users, 300, sizes)
    many = _to_users(peer, peer.path(",".join(["u.%d", *wide])), sizes.wide_streams, 300, sizes)
    return {
        "slow_cpu_us": slow["cpu_us"],
        "fast_cpu_us": fast["cpu_us"],
        "beside_cpu_us": beside["cpu_us"],
        "many_cpu_us": many["cpu_us"],
        "slow_p50_ms": slow["p50_ms"],
        "fast_p50_ms": fast["p50_ms"],
        "incomplete": sum(each["lost"] for each in (slow, fast, beside, many)),
    }


def _to_users(peer: Peer, path: str, streams: int, rate: int, sizes: Sizes) -> Counters:
    """Publishes to one user after another. Returns the CPU per event and the median latency."""
    count = int(rate * sizes.users_seconds)
    with Client(peer, streams, path=path) as client:
        settle()
        peer.publish(rate, rate, sizes.event, channel="u.%d", spread=streams)  # warms up
        cpu = CPU(peer)
        peer.publish(count, rate, sizes.event, channel="u.%d", spread=streams)
        spent = cpu.seconds()
        settle()
        report = client.finish()
    return {
        "cpu_us": spent * 1e6 / count,
        "p50_ms": report["p50_ms"],
        "lost": rate + count - report["events"],
    }


def publish(peer: Peer, sizes: Sizes) -> Counters:
    """Events per second that one publisher sends while no stream is open. Redis has the server's core."""
    peer.give_redis_the_servers_core()
    single = peer.publish(sizes.publish_single, 0, sizes.event)
    redis_s = peer.redis.cpu_seconds() if peer.redis else 0.0
    many = peer.publish(sizes.publish_many, 0, sizes.event, batch=100)
    figures = _redis_cost(peer, sizes, redis_s) if peer.redis else {}
    if peer.publisher == "announcer":
        crowd = peer.publish(sizes.publish_many, 0, sizes.event, greenlets=100)
        figures["crowd_per_s"] = crowd["events"] / crowd["seconds"]
        figures["crowd_vs_single"] = figures["crowd_per_s"] * single["seconds"] / single["events"]
        bare = peer.publish(sizes.publish_single, 0, sizes.event, kind="evalsha")
        figures["single_vs_evalsha"] = single["events"] / single["seconds"] * bare["seconds"] / bare["events"]
    return {
        **figures,
        "single_per_s": single["events"] / single["seconds"],
        "many_per_s": many["events"] / many["seconds"],
        "single_client_cpu_us": single["cpu_s"] * 1e6 / single["events"],
        "many_client_cpu_us": many["cpu_s"] * 1e6 / many["events"],
    }


def _redis_cost(peer: Peer, sizes: Sizes, before: float) -> Counters:
    """CPU of Redis per event, for the events published just before, and the CPU that one listening worker
    adds."""
    assert peer.redis
    alone = (peer.redis.cpu_seconds() - before) * 1e6 / sizes.publish_many
    with Client(peer, 1):
        settle()
        before = peer.redis.cpu_seconds()
        peer.publish(sizes.publish_many, 0, sizes.event, batch=100)
        settle()
        heard = (peer.redis.cpu_seconds() - before) * 1e6 / sizes.publish_many
    return {"redis_cpu_us": alone, "redis_cpu_us_per_worker": heard - alone}


def departure(peer: Peer, sizes: Sizes) -> Counters:
    """Streams open and close among few and among many idle streams; then nearly all streams leave at once."""
    warm_up(peer)
    few = _churn(peer, 10, sizes)
    many = _churn(peer, sizes.churn_idle, sizes, leave=True)
    return {
        "few_us": few["us"],
        "many_us": many["us"],
        "many_vs_few": many["us"] / few["us"],
        "batch_few_us": few["batch_us"],
        "batch_many_us": many["batch_us"],
        "leave_us": many["leave_us"],
        "left_open": many["left_open"],
    }


def _churn(peer: Peer, idle_streams: int, sizes: Sizes, leave: bool = False) -> Counters:
    """CPU per stream that connects and leaves, one after another and 50 at a time."""
    forget_departed(peer)
    figures: Counters = {}
    with Client(peer, idle_streams) as client:
        settle()
        for name, batch in (("us", 1), ("batch_us", 50)):
            cpu = CPU(peer)
            client.command(f"churn {sizes.churned} {batch}")
            settle()
            figures[name] = cpu.seconds() * 1e6 / sizes.churned
        if leave:
            figures.update(_leave(peer, client, idle_streams - 10))
    return figures


def _leave(peer: Peer, client: Client, streams: int) -> Counters:
    """CPU per stream when many streams leave at once. It includes noticing the departures.

    The events that make the server notice cost next to nothing, because only few streams stay.
    """
    files = open_files(peer.pids())
    quiet = CPU(peer)
    settle(2)
    background = quiet.share()
    cpu, started = CPU(peer), time.monotonic()
    client.command(f"close {streams}")
    forget_departed(peer)
    busy = cpu.seconds() - background * (time.monotonic() - started)
    closed = files - open_files(peer.pids())
    return {"leave_us": busy * 1e6 / streams, "left_open": max(0, streams - closed)}


Case = Callable[[Peer, Sizes], Counters]

CASES: dict[str, Case] = {
    base.STEADY: steady,
    base.ONE_STREAM: one_stream,
    base.BURST: burst,
    base.IDLE: idle,
    base.HANDSHAKE: handshake,
    base.STORM: storm,
    base.HEARTBEAT: heartbeat,
    base.GROUPS: groups,
    base.USERS: users,
    base.PUBLISH: publish,
    base.DEPARTURE: departure,
}
