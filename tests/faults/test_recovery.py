"""Clients that connect, leave and return at any moment: FAULTS 9 and 10."""

from __future__ import annotations

import random
import socket
from pathlib import Path

from tests.support.account.logs import LogAccount
from tests.support.account.records import Connection, Opened
from tests.support.crowd import Client, Crowd
from tests.support.deadline import stretched
from tests.support.fault_setup import Baseline, Publisher, Valkey, servers, some_of
from tests.support.measurements import Measurements, percentile

#: Events that a channel keeps in these tests.
KEPT = 5000
CHANNELS = [f"room:{n}" for n in range(10)]


class Guest(Client):
    """A client that connects with the cursor of a random recent event, or with no cursor."""

    def __init__(self, channels: frozenset[str], account: LogAccount, chance: random.Random) -> None:
        super().__init__(channels)
        self._account = account
        self._chance = chance

    def connect(self, port: int) -> socket.socket:
        recent = self._account.events[-500:]
        without_cursor = not recent or self._chance.random() < 0.1
        self.cursor = None if without_cursor else self._chance.choice(recent).cursor
        return super().connect(port)


def resumed(crowd: Crowd) -> int:
    """How many streams were resumed."""
    visits = [visit for client in crowd.clients for visit in client.log]
    firsts = [record for visit in visits for record in visit.records[:1]]
    return sum(isinstance(record, Opened) and record.resumed for record in firsts)


def test_09_random_pauses_in_workers_neither_lose_nor_double_an_event(
    valkey: Valkey, chance: random.Random, measurements: Measurements, tmp_path: Path
) -> None:
    """Workers pause at random, guests bring random cursors, small channels often lose all clients."""
    account = LogAccount()
    small_channels = [f"small:{n}" for n in range(20)]
    with servers(
        valkey.url,
        tmp_path,
        app="tests.apps.random_pauses:app",
        probe=0.5,
        heartbeat=1,
        linger=0,
        history_size=KEPT,
    ) as both:
        baseline = Baseline.take(both)
        ports = [server.port for server in both]
        guests = [Guest(some_of(chance, CHANNELS, 3), account, chance) for _ in range(80)]
        regulars = [Client([small_channels[n % 20]]) for n in range(40)]
        crowd = Crowd(ports, guests, chance, pause=(0, 0.1))
        small_crowd = Crowd(ports, regulars, chance, pause=(0, 0.2))
        crowd.open_all()
        small_crowd.open_all()
        publishers = [
            Publisher(
                valkey.url, account, lambda n: [CHANNELS[n % 10]], rate=400, SSE_PUSH_HISTORY_SIZE=KEPT
            ),
            Publisher(valkey.url, account, lambda n: [small_channels[n % 20]], rate=200, first=10**6),
        ]
        for publisher in publishers:
            publisher.start()
        crowd.start_cutting((0.1, min(stretched(1), 5)))
        small_crowd.start_cutting((0.05, min(stretched(0.4), 2)))
        while crowd.cuts < 400 or small_crowd.cuts < 400 or resumed(crowd) <= 200:
            crowd.step(0.005)
            small_crowd.step(0.005)
        for publisher in publishers:
            publisher.stop()
        for one_crowd in (crowd, small_crowd):
            one_crowd.stop_cutting()
            one_crowd.catch_up(account)
            one_crowd.close()
        leaks = baseline.leaks(valkey.client())
    visits: list[list[Connection]] = [[visit] for guest in guests for visit in guest.log]
    cut_short = account.verdict(visits, complete=False)
    stayed = account.verdict([guest.log[-1:] for guest in guests] + [client.log for client in regulars])
    measurements.note(
        visits=len(visits), visits_of_small_channels=sum(len(client.log) for client in regulars)
    )
    measurements.note(cut_short=cut_short, stayed=stayed, LEAK=leaks)
    assert cut_short.resumed > 200, "too few streams resumed from the guests' cursors"
    assert cut_short.clean(), cut_short
    assert stayed.clean(), stayed
    assert cut_short.resets == stayed.resets == 0
    assert not leaks


def test_10_many_reconnects_at_a_time_resume_within_half_a_second(
    valkey: Valkey, chance: random.Random, measurements: Measurements, tmp_path: Path
) -> None:
    account = LogAccount()

    def sometimes_others(channels: frozenset[str]) -> frozenset[str]:
        return some_of(chance, CHANNELS, 4) if chance.random() < 0.3 else channels

    with servers(valkey.url, tmp_path, heartbeat=1, linger=0.5) as both:
        baseline = Baseline.take(both)
        clients = [Client(some_of(chance, CHANNELS, 4)) for _ in range(150)]
        crowd = Crowd(
            [server.port for server in both], clients, chance,
            pause=(0, 0.1), other=sometimes_others,
        )  # fmt: skip
        crowd.open_all()
        publisher = Publisher(valkey.url, account, lambda n: [CHANNELS[n % 10]], rate=300)
        publisher.start()
        crowd.start_cutting((0.2, min(stretched(2), 8)))
        crowd.until(lambda: crowd.cuts >= 500 and resumed(crowd) > 400, 900)
        publisher.stop()
        crowd.stop_cutting()
        crowd.catch_up(account)
        crowd.close()
        leaks = baseline.leaks(valkey.client())
    waits = [
        record.at - connection.asked_at
        for client in clients
        for connection in client.log
        for record in connection.records
        if isinstance(record, Opened) and record.resumed
    ]
    verdict = account.verdict([client.log for client in clients])
    measurements.note(cuts=crowd.cuts, resume_p50=percentile(waits, 50), resume_p99=percentile(waits, 99))
    measurements.note(verdict=verdict, LEAK=leaks)
    assert verdict.resumed > 400
    assert verdict.clean(), verdict
    assert verdict.resets == 0
    assert crowd.statuses() == {200}
    assert percentile(waits, 99) <= stretched(0.5)
    assert not leaks
