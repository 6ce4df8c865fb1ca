"""A link between worker and broker that is killed, flooded or frozen: FAULTS 4, 5 and 7."""

from __future__ import annotations

import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx

from flask_sse_push import MessageAnnouncer
from tests.support.account.logs import LogAccount
from tests.support.crowd import Client, Crowd
from tests.support.deadline import eventually, stretched
from tests.support.fault_setup import Baseline, Publisher, Valkey, look_inside, servers, some_of
from tests.support.measurements import Measurements
from tests.support.processes import state_of
from tests.support.proxy import Proxy
from tests.support.stream import Stream

from .conftest import StartValkey

CHANNELS = [f"room:{n}" for n in range(10)]


def test_04_links_killed_five_times_a_second_lose_nothing(
    valkey: Valkey, chance: random.Random, measurements: Measurements, tmp_path: Path
) -> None:
    account = LogAccount()
    kills = 0
    with servers(valkey.url, tmp_path, heartbeat=1, linger=0.5) as both, valkey.client() as client:
        baseline = Baseline.take(both)
        clients = [Client(some_of(chance, CHANNELS, 3)) for _ in range(60)]
        crowd = Crowd([server.port for server in both], clients, chance, life=(1, 6), pause=(0, 0.5))
        crowd.open_all()
        publisher = Publisher(valkey.url, account, lambda n: [CHANNELS[n % 10]], rate=500)
        publisher.start()
        calls = sum(held["history_calls"] for server in both for held in look_inside(server, 1).values())
        while kills < 40:
            kills += int(client.client_kill_filter(_type="pubsub"))
            crowd.run(0.2)
        assert crowd.until(lambda: len(client.pubsub_channels("*:inbox:*")) == 2, 60)
        for inbox in client.pubsub_channels("*:inbox:*"):
            client.publish(inbox, b"rubbish")  # harms neither the reader nor its link
        told = "a message that is not an echo"
        assert crowd.until(lambda: all(told in server.log.read_text() for server in both), 60)
        held: list[dict[str, Any]] = []

        def links_are_renewed() -> bool:
            held[:] = [held for server in both for held in look_inside(server, 1).values()]
            return sum(int(worker["reconnects"]) for worker in held) >= 0.8 * kills

        assert crowd.until(links_are_renewed, 60), "the links were not cut"
        calls = sum(worker["history_calls"] for worker in held) - calls
        publisher.stop()
        crowd.stop_cutting()
        crowd.catch_up(account)
        crowd.close()
        leaks = baseline.leaks(client)
    verdict = account.verdict([client.log for client in clients])
    measurements.note(
        kills=kills, reconnects=sum(worker["reconnects"] for worker in held), history_calls=calls
    )
    measurements.note(cuts=crowd.cuts, verdict=verdict, LEAK=leaks)
    assert verdict.clean(), verdict
    assert verdict.resets == 0
    assert calls <= kills * len(CHANNELS) * 2
    assert publisher.failures == 0
    assert not leaks


def test_05_a_worker_that_the_broker_cut_off_for_being_slow_catches_up(
    start_valkey: StartValkey, chance: random.Random, measurements: Measurements, tmp_path: Path
) -> None:
    config = {"client-output-buffer-limit": "pubsub 65536 16384 1", "appendonly": "no"}
    valkey = start_valkey(**config)
    account = LogAccount()
    with servers(valkey.url, tmp_path, heartbeat=1, history_size=20_000, max_message=20_000) as both:
        clients = [Client(["big"]) for _ in range(4)]
        crowd = Crowd([server.port for server in both], clients, chance)
        crowd.open_all()
        before = {pid: held for server in both for pid, held in look_inside(server, 1).items()}
        publisher = Publisher(
            valkey.url, account, lambda n: ["big"], rate=1500, size=10_000, many=25,
            SSE_PUSH_HISTORY_SIZE=20_000, SSE_PUSH_MAX_MESSAGE=20_000,
        )  # fmt: skip
        publisher.start()
        crowd.run(0.3)
        (stopped,) = both[0].worker_pids()
        os.kill(stopped, signal.SIGSTOP)
        try:
            eventually(lambda: state_of(stopped) == "T")
            cut = crowd.until(lambda: disconnections(valkey) > 0, 60)
            crowd.run(0.5)
        finally:
            os.kill(stopped, signal.SIGCONT)
        publisher.stop()
        crowd.catch_up(account)
        after = {pid: held for server in both for pid, held in look_inside(server, 1).items()}
        crowd.close()
    grown = max(after[pid]["resident_kb"] - before[pid]["resident_kb"] for pid in before)
    verdict = account.verdict([client.log for client in clients])
    measurements.note(cut_by_redis=disconnections(valkey), published=len(account.events), grown_kb=grown)
    measurements.note(verdict=verdict)
    assert cut, "the broker did not cut the worker off"
    assert verdict.clean(), verdict
    assert all(len(connection.resets()) <= 1 for client in clients for connection in client.log)
    assert grown < 50_000


def disconnections(valkey: Valkey) -> int:
    """How many clients the broker has cut off because their output buffers were full."""
    return int(valkey.client().info("stats")["client_output_buffer_limit_disconnections"])


DIRECTIONS = {
    "both ways": {"requests": True, "replies": True},
    "requests only": {"requests": True, "replies": False},
    "replies only": {"requests": False, "replies": True},
}


def test_07_a_link_that_freezes_without_an_error_is_renewed_within_ten_seconds(
    valkey: Valkey, chance: random.Random, measurements: Measurements, tmp_path: Path
) -> None:
    """Uses the default settings. Three workers run at the same time, each with its own frozen proxy."""
    account = LogAccount()
    with ExitStack() as stack:
        proxies = {name: stack.enter_context(Proxy(valkey.port)) for name in DIRECTIONS}
        kinds = dict(zip(DIRECTIONS, ("hijack", "generator", "hijack"), strict=True))
        ports = {}
        for name, proxy in proxies.items():
            folder = tmp_path / name.replace(" ", "-")
            folder.mkdir()
            url = f"redis://127.0.0.1:{proxy.port}/0"
            (server,) = stack.enter_context(servers(url, folder, transports=(kinds[name],)))
            ports[name] = server.port
        crowds = {
            name: Crowd([port], [Client(some_of(chance, CHANNELS, 3)) for _ in range(20)], chance)
            for name, port in ports.items()
        }
        for crowd in crowds.values():
            crowd.open_all()
        publisher = Publisher(valkey.url, account, lambda n: [CHANNELS[n % 10]], rate=100)
        publisher.start()
        run_all(crowds, 0.5)
        frozen = {name: proxy.hold(**DIRECTIONS[name]) for name, proxy in proxies.items()}
        began = time.monotonic()
        accepted = {name: proxy.accepted for name, proxy in proxies.items()}
        # A new channel needs requests to the broker. Channels that the worker follows need only its replies.
        for crowd in crowds.values():
            for client in crowd.clients[:5]:
                client.channels = frozenset({f"new:{crowd.ports[0]}"})
                crowd.lose(client, reset=False)
        extra = Publisher(
            valkey.url, account, lambda n: [f"new:{port}" for port in ports.values()], rate=20,
            first=10**6,
        )  # fmt: skip
        extra.start()
        deadline = began + 60
        while time.monotonic() < deadline and not all(
            got_events_after(client, began) for crowd in crowds.values() for client in crowd.clients
        ):
            run_all(crowds, 0.1)
        run_all(crowds, 1)
        publisher.stop()
        extra.stop()
        for crowd in crowds.values():
            crowd.catch_up(account)
            crowd.close()
    clients = [client for crowd in crowds.values() for client in crowd.clients]
    for name, crowd in crowds.items():
        silences = [longest_silence(client, began) for client in crowd.clients]
        measurements.note(**{f"recovery_{name.replace(' ', '_')}": max(silences)})
        assert max(silences) <= stretched(10) + 1, f"{name}: ten seconds, and one to notice the event"
        assert frozen[name] >= 1
        assert proxies[name].accepted > accepted[name], f"{name}: no new link"
    verdict = account.verdict([client.log for client in clients])
    measurements.note(frozen=sum(frozen.values()), verdict=verdict)
    assert verdict.clean(), verdict
    assert verdict.resets == 0


def test_07_a_link_to_a_replaced_node_is_renewed_though_it_still_brings_events(
    start_valkey: StartValkey, chance: random.Random, measurements: Measurements, tmp_path: Path
) -> None:
    """Commands reach the new node. The link is still open to the old node, which still gets events."""
    old, new = start_valkey(), start_valkey()
    account = LogAccount()
    with Proxy(old.port) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}/0"
        with servers(url, tmp_path, probe=0.5, heartbeat=1) as both:
            clients = [Client([chance.choice(CHANNELS)]) for _ in range(20)]
            crowd = Crowd([server.port for server in both], clients, chance)
            crowd.open_all()
            on_old = Publisher(old.url, account, lambda n: [CHANNELS[n % 10]], rate=100)
            on_old.start()
            crowd.run(0.5)
            proxy.lead_to(new.port)
            with old.client() as client:
                assert client.client_kill_filter(_type="normal", skipme=True) > 0
                links = len(client.client_list(_type="pubsub"))
            began = time.monotonic()
            on_new = Publisher(new.url, account, lambda n: [CHANNELS[n % 10]], rate=100, first=10**6)
            on_new.start()
            crowd.until(lambda: all(client.log[0].resets() for client in clients), 60)
            took = time.monotonic() - began
            still_published = account.events and on_old.failures == 0
            on_old.stop()
            crowd.run(0.5)
            on_new.stop()
            crowd.catch_up(account)
            crowd.close()
        logs = [server.log.read_text() for server in both]
    all_resets = [reset for client in clients for reset in client.log[0].resets()]
    verdict = account.verdict([client.log for client in clients])
    measurements.note(links_to_old_node=links, renewed_after=took, verdict=verdict)
    assert links == 2
    assert still_published
    assert all("no probe came back" in text for text in logs)
    assert took <= 2 * 2 * 0.5 + stretched(2)
    assert {reset.reason for reset in all_resets} == {"epoch"}
    assert len(all_resets) == len(clients), "each client gets one reset"
    assert verdict.clean(), verdict


def test_a_worker_that_reads_a_flood_of_events_serves_requests_meanwhile(
    valkey: Valkey, measurements: Measurements, tmp_path: Path, http: httpx.Client
) -> None:
    """60,000 events arrive while each worker is stopped. So all of them wait in its link at once."""
    count = 60_000
    running = servers(valkey.url, tmp_path, max_buffer=200_000_000, probe=60)
    with running as both, ThreadPoolExecutor() as pool:
        streams = [Stream(f"{server.url}/stream?channels=room:1") for server in both]
        for server, stream in zip(both, streams, strict=True):
            stream.next_of("sse.open")
            http.get(f"{server.url}/blocked")
        workers = [server.worker_pids()[0] for server in both]
        for worker in workers:
            os.kill(worker, signal.SIGSTOP)
        with closing(MessageAnnouncer.from_url(valkey.url)) as announcer:
            for first in range(0, count, 1000):
                numbers = range(first, first + 1000)
                announcer.publish_many([{"data": f"{n:0200}", "channel": "room:1"} for n in numbers])
        readers = [pool.submit(last_of, stream, count) for stream in streams]
        for worker in workers:
            os.kill(worker, signal.SIGCONT)
        wrong = [reader.result(60) for reader in readers]
        longest = [http.get(f"{server.url}/blocked").json()["longest"] for server in both]
    measurements.note(longest_turn=max(longest))
    assert wrong == [[], []]
    assert max(longest) < 0.3


def last_of(stream: Stream, count: int) -> list[int]:
    """Reads until the event `count` - 1 comes. Returns the numbers of events that came at a wrong place."""
    wrong = []
    for expected in range(count):
        found = int(stream.next_of("message", "sse.reset", "sse.close").data)
        if found != expected:
            wrong.append(found)
    return wrong


def run_all(crowds: dict[str, Crowd], seconds: float) -> None:
    """Steps all crowds in turn, for `seconds`."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for crowd in crowds.values():
            crowd.step(0.002)


def got_events_after(client: Client, since: float) -> bool:
    """Whether an event came more than a second after `since`."""
    records = client.log[-1].got()
    return bool(records) and records[-1].at > since + 1


def longest_silence(client: Client, since: float) -> float:
    """The longest time without an event, in seconds, from `since` on."""
    times = [since, *(got.at for visit in client.log for got in visit.got() if got.at > since)]
    return max((after - before for before, after in pairwise(times)), default=float("inf"))
