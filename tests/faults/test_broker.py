"""A broker that is killed, frozen or emptied, or whose clock jumps: FAULTS 1, 2 and 6."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from math import inf
from pathlib import Path

import httpx
import redis

from flask_sse_push import MessageAnnouncer
from tests.support.account.logs import LogAccount
from tests.support.crowd import Client, Crowd
from tests.support.deadline import eventually, stretched
from tests.support.fault_setup import Baseline, Publisher, Valkey, servers, some_of, stored
from tests.support.measurements import Measurements, percentile
from tests.support.processes import Gunicorn
from tests.support.stream import Stream

CHANNELS = [f"room:{n}" for n in range(10)]


def channels_of(serial: int) -> list[str]:
    """The channels of an event. Most events go to one channel, some to two."""
    return (
        [CHANNELS[serial % 10], CHANNELS[(serial + 3) % 10]] if serial % 20 == 0 else [CHANNELS[serial % 10]]
    )


def recovery_times(crowd: Crowd, back: float) -> list[float]:
    """For each client, the seconds from the time `back` until its next event; infinite if none came yet."""
    times = []
    for client in crowd.clients:
        arrivals = (got.at for connection in client.log for got in connection.got() if got.at > back)
        times.append(next(arrivals, inf) - back)
    return times


def test_01_clients_lose_no_event_when_the_broker_is_killed_and_kept_its_data(
    valkey: Valkey, chance: random.Random, measurements: Measurements, tmp_path: Path
) -> None:
    account, recovered = LogAccount(), []
    with servers(valkey.url, tmp_path, probe=0.5, heartbeat=1, linger=0.5) as both:
        baseline = Baseline.take(both)
        clients = [Client(some_of(chance, CHANNELS, 3)) for _ in range(100)]
        crowd = Crowd([server.port for server in both], clients, chance, pause=(0, 0.3))
        crowd.open_all()
        publisher = Publisher(valkey.url, account, channels_of, rate=400, SSE_PUSH_PUBLISH_TIMEOUT=0.5)
        publisher.start()
        for kills in (1, 2):
            crowd.run(0.7)
            valkey.kill()
            crowd.run(0.3)
            for client in chance.sample(clients, 10):  # these clients return while the broker is down
                crowd.lose(client, reset=True)
            crowd.run(chance.uniform(0.2, 0.8))
            assert crowd.until(lambda kills=kills: publisher.failures >= kills, 60), "no publish failed"  # type: ignore[misc]
            valkey.start()
            back = time.monotonic()
            crowd.until(lambda back=back: max(recovery_times(crowd, back)) < inf, 60)  # type: ignore[misc]
            recovered += recovery_times(crowd, back)
        publisher.stop()
        crowd.catch_up(account)
        measurements.note(kills=2, failed=publisher.failures, unknown=len(account.unknown))
        measurements.note(recovery_p50=percentile(recovered, 50), recovery_p99=percentile(recovered, 99))
        crowd.close()
        leaks = baseline.leaks(valkey.client())
    verdict = account.verdict([client.log for client in clients])
    kept = stored(valkey.url, CHANNELS)
    measurements.note(verdict=verdict, LEAK=leaks)
    assert verdict.clean(), verdict
    assert verdict.resets == 0
    assert verdict.resumed >= 20
    assert all(kept.count(n) <= len(set(channels_of(n))) for n in account.unknown)
    assert crowd.statuses() == {200}
    assert percentile(recovered, 99) <= stretched(2.0)
    assert not leaks


Loss = Callable[[Valkey], object]


def evict(valkey: Valkey) -> None:
    """Makes Redis evict keys until it has evicted the state or the heads."""
    with valkey.client() as client:
        epoch = client.hget("{sse:0}:state", "epoch")
        client.config_set("maxmemory-policy", "allkeys-random")
        client.config_set("maxmemory", client.info("memory")["used_memory"] + 100_000)
        deadline = time.monotonic() + 60
        while client.hget("{sse:0}:state", "epoch") == epoch and client.exists("{sse:0}:heads"):
            with suppress(redis.ResponseError):  # Redis finds nothing more to evict now
                client.set(f"foreign:{random.random()}", "x" * 20_000)
            assert time.monotonic() < deadline, "Redis evicted neither the state nor the heads"
        client.config_set("maxmemory", 0)
        assert client.info("stats")["evicted_keys"] > 0


def restart_empty(valkey: Valkey) -> None:
    valkey.kill()
    valkey.empty()
    valkey.start()


LOSSES: dict[str, Loss] = {
    "flushed": lambda valkey: valkey.client().flushall(),
    "state deleted": lambda valkey: valkey.client().delete("{sse:0}:state"),
    "heads deleted": lambda valkey: valkey.client().delete("{sse:0}:heads"),
    "set back": lambda valkey: valkey.client().hset("{sse:0}:state", "last", "1"),
    "restarted empty": restart_empty,
    "evicted": evict,
}


def epoch_of(valkey: Valkey) -> bytes | None:
    epoch: bytes | None = valkey.client().hget("{sse:0}:state", "epoch")
    return epoch


def test_02_whatever_the_broker_loses_each_client_gets_one_reset(
    valkey: Valkey, chance: random.Random, measurements: Measurements, tmp_path: Path
) -> None:
    account = LogAccount()
    with servers(valkey.url, tmp_path, probe=0.5, heartbeat=1, linger=0.5) as both:
        baseline = Baseline.take(both)
        clients = [Client(some_of(chance, CHANNELS, 3)) for _ in range(40)]
        crowd = Crowd([server.port for server in both], clients, chance)
        crowd.open_all()
        publisher = Publisher(valkey.url, account, channels_of, rate=200, SSE_PUSH_PUBLISH_TIMEOUT=0.5)
        publisher.start()
        for name, lose in LOSSES.items():
            crowd.run(0.5)
            epoch, before = epoch_of(valkey), [resets(client) for client in clients]
            assert epoch
            lose(valkey)
            began = time.monotonic()

            def all_reset(before: list[int] = before) -> bool:
                return all(resets(client) > had for client, had in zip(clients, before, strict=True))

            assert crowd.until(all_reset, 60), f"{name}: some clients got no reset"
            assert time.monotonic() - began <= stretched(3), name
            measurements.note(**{name.replace(" ", "_"): time.monotonic() - began})
            crowd.run(0.5)
            assert [resets(client) - had for client, had in zip(clients, before, strict=True)] == [1] * 40, (
                name
            )
            assert eventually(lambda: epoch_of(valkey)) != epoch, f"{name}: nothing was lost"
        publisher.stop()
        crowd.catch_up(account)
        crowd.close()
        leaks = baseline.leaks(valkey.client())
    verdict = account.verdict([client.log for client in clients])
    measurements.note(verdict=verdict, LEAK=leaks)
    assert verdict.clean(), verdict
    assert not leaks


def resets(client: Client) -> int:
    return sum(len(connection.resets()) for connection in client.log)


def test_02_a_lost_list_resets_only_the_clients_that_need_it(
    valkey: Valkey, chance: random.Random, measurements: Measurements, tmp_path: Path
) -> None:
    account = LogAccount()
    with servers(valkey.url, tmp_path, transports=["hijack"], probe=0.5, heartbeat=1) as (server,):
        staying = [Client(["room:0", "room:1"]) for _ in range(10)]
        away = [Client(["room:0", "room:1"]) for _ in range(10)]
        crowd = Crowd([server.port], [*staying, *away], chance)
        crowd.open_all()
        publisher = Publisher(valkey.url, account, lambda n: [CHANNELS[n % 2]], rate=100)
        publisher.start()
        crowd.run(0.5)
        for client in away:
            crowd.lose(client, reset=True)
            client.back_at = float("inf")
        seen = len(account.events)
        assert crowd.until(lambda: len(account.events) > seen + 30, 60)
        assert valkey.client().delete("{sse:0}:list:room:0") == 1
        # The old worker still has the events in its channel cache, so the clients return to a new worker.
        with servers(valkey.url, tmp_path / "new", transports=["generator"], probe=0.5, heartbeat=1) as (
            new,
        ):
            crowd.ports = [new.port]
            for client in away:
                client.back_at = 0.0
            crowd.open_all()
            crowd.run(0.5)
            publisher.stop()
            crowd.catch_up(account)
            crowd.close()
    verdict = account.verdict([client.log for client in crowd.clients])
    measurements.note(verdict=verdict)
    assert verdict.clean(), verdict
    assert {resets(client) for client in staying} == {0}
    assert {reset.channels for client in away for reset in client.log[-1].resets()} == {("room:0",)}
    assert {resets(client) for client in away} == {1}


def test_02_a_clock_that_jumps_leaves_no_silent_gap(
    valkey: Valkey, chance: random.Random, measurements: Measurements, tmp_path: Path
) -> None:
    day = 24 * 3600 * 1_000_000
    account = LogAccount()
    with servers(valkey.url, tmp_path, probe=0.5, heartbeat=1) as both, valkey.client() as client:
        clients = [Client(some_of(chance, CHANNELS, 3)) for _ in range(40)]
        crowd = Crowd([server.port for server in both], clients, chance, life=(0.3, 2), pause=(0, 0.5))
        publisher = Publisher(valkey.url, account, channels_of, rate=200)
        publisher.start()
        crowd.run(1)
        ahead = int(client.hget("{sse:0}:state", "last") or 0) + day
        client.hset(
            "{sse:0}:state", "last", ahead
        )  # as if the clock had been a day ahead, and is right again
        assert crowd.until(lambda: int(client.hget("{sse:0}:state", "last") or 0) > ahead, 60)
        assert crowd.until(lambda: len(account.events) > 400, 60)
        ahead_epoch = epoch_of(valkey)
        client.hset("{sse:0}:state", "last", ahead - day)  # back to before positions that events already have
        assert crowd.until(lambda: epoch_of(valkey) != ahead_epoch, 60)
        assert crowd.until(lambda: len(account.events) > 800, 60)
        crowd.stop_cutting()
        publisher.stop()
        crowd.catch_up(account)
        crowd.close()
    verdict = account.verdict([client.log for client in clients])
    measurements.note(cuts=crowd.cuts, verdict=verdict)
    assert verdict.clean(), verdict
    assert verdict.delivered > 1000


def publish_beside_pages(both: Sequence[Gunicorn]) -> tuple[list[float], float]:
    """Publishes in views of both servers. Returns the seconds of each publish, and of the slowest page."""

    def publish(server: Gunicorn) -> float:
        began = time.monotonic()
        answer = httpx.post(
            f"{server.url}/publish", json={"data": 1, "channel": "x"}, trust_env=False, timeout=60
        )
        assert answer.status_code == 500, "BrokerUnavailable, which this app does not handle"
        return time.monotonic() - began

    slowest = 0.0
    with ThreadPoolExecutor(8) as pool, httpx.Client(trust_env=False, timeout=60) as http:
        calls = [pool.submit(publish, server) for server in [*both] * 4]
        while not all(call.done() for call in calls):
            for server in both:
                began = time.monotonic()
                assert http.get(f"{server.url}/").text == "hello"
                slowest = max(slowest, time.monotonic() - began)
        return [call.result() for call in calls], slowest


def test_06_workers_notice_a_frozen_broker_and_streams_stay_open(
    valkey: Valkey, chance: random.Random, measurements: Measurements, tmp_path: Path
) -> None:
    account = LogAccount()
    with servers(valkey.url, tmp_path, probe=0.5, heartbeat=2, publish_timeout=1) as both:
        clients = [Client(some_of(chance, CHANNELS, 3)) for _ in range(50)]
        crowd = Crowd([server.port for server in both], clients, chance)
        crowd.open_all()
        publisher = Publisher(valkey.url, account, channels_of, rate=200, SSE_PUSH_PUBLISH_TIMEOUT=1.0)
        publisher.start()
        crowd.run(0.5)
        logs = [server.log for server in both]
        with valkey.frozen():
            began = time.monotonic()
            noticed: list[float] = []

            def all_noticed() -> bool:
                if all("no probe came back" in log.read_text() for log in logs) and not noticed:
                    noticed.append(time.monotonic() - began)
                return bool(noticed) and publisher.failures >= 3 and time.monotonic() - began > 4

            crowd.until(all_noticed, 60)
            with ThreadPoolExecutor(1) as pool:
                pages = pool.submit(publish_beside_pages, both)
                crowd.until(pages.done, 60)
                published, slowest_page = pages.result()
            thawed = time.monotonic()
        crowd.until(lambda: max(recovery_times(crowd, thawed)) < inf, 60)
        connected = int(valkey.client().info("clients")["connected_clients"])
        publisher.stop()
        crowd.catch_up(account)
        recovered = recovery_times(crowd, thawed)
        gaps = [
            after.at - before.at
            for client in clients
            for before, after in zip(client.log[-1].records, client.log[-1].records[1:], strict=False)
        ]
        crowd.close()
    verdict = account.verdict([client.log for client in clients])
    measurements.note(failed=publisher.failures, noticed=noticed[0] if noticed else None)
    measurements.note(slowest_publish=publisher.slowest, longest_silence=max(gaps), connected=connected)
    measurements.note(publish_in_a_view=max(published), slowest_page=slowest_page)
    measurements.note(recovery_p99=percentile(recovered, 99), verdict=verdict)
    assert publisher.failures >= 3, "no publish failed: the broker was never frozen"
    assert noticed
    assert noticed[0] <= stretched(2 * 0.5 + 0.5 + 0.5), (
        "two intervals, one read, and the time to read the log"
    )
    assert max(gaps) <= stretched(3), "one and a half heartbeat intervals"
    assert publisher.slowest <= 1 + stretched(0.5)
    assert max(published) <= 1 + stretched(1), "plus the time of the request"
    assert slowest_page <= stretched(0.6), "the worker must answer other requests meanwhile"
    assert connected < 20, "calls pile up"
    assert verdict.clean(), verdict
    assert verdict.resets == 0
    assert {len(client.log) for client in clients} == {1}, "streams stay open"
    assert percentile(recovered, 99) <= stretched(2.0)


def test_a_stream_that_opens_while_the_broker_is_down_waits_for_it(valkey: Valkey, tmp_path: Path) -> None:
    announcer = MessageAnnouncer.from_url(valkey.url)
    with servers(valkey.url, tmp_path) as both:
        cursor = announcer.publish("seen", channel="a")
        announcer.publish("missed", channel="a")
        announcer.close()
        valkey.kill()
        streams = [Stream(f"{server.url}/stream?channels=a", cursor=cursor) for server in both]
        for stream in streams:
            assert stream.status == 200
            error = stream.next()
            assert error.type == "sse.error"
            assert error.json()["code"] == 1203
            assert error.json()["retry"] is True
        valkey.start()
        for stream in streams:
            assert stream.next_of("sse.open").json()["resumed"] is True
            assert stream.next_of("message").data == "missed"
            stream.close()
