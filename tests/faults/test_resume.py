"""Clients that come, go and come back at every moment: FAULTS 9 and 10."""

from __future__ import annotations

import random
import socket
from pathlib import Path

from tests.support.account.logs import LogAccount
from tests.support.account.records import Connection, Opened
from tests.support.crowd import Client, Crowd
from tests.support.deadline import stretched
from tests.support.figures import Counters, percentile
from tests.support.scene import Baseline, Publisher, Valkey, servers, some_of

#: Events a channel keeps here.
KEPT = 5000
HESITANT = "tests.apps.hesitant:app"
ROOMS = [f"room:{n}" for n in range(10)]


class Guest(Client):
    """Comes each time with some cursor that was once given out, or with none."""

    def __init__(self, channels: frozenset[str], account: LogAccount, chance: random.Random) -> None:
        super().__init__(channels)
        self._account = account
        self._chance = chance

    def connect(self, port: int) -> socket.socket:
        recent = self._account.events[-500:]
        anew = not recent or self._chance.random() < 0.1
        self.cursor = None if anew else self._chance.choice(recent).cursor
        return super().connect(port)


def resumed(crowd: Crowd) -> int:
    """How many streams have begun where their clients were before."""
    visits = [visit for client in crowd.clients for visit in client.log]
    firsts = [record for visit in visits for record in visit.records[:1]]
    return sum(isinstance(record, Opened) and record.resumed for record in firsts)


def test_09_no_pause_at_any_seam_loses_or_doubles(
    valkey: Valkey, chance: random.Random, figures: Counters, tmp_path: Path
) -> None:
    """Workers that hesitate, guests with random cursors, and channels whose last client always leaves."""
    account = LogAccount()
    endpoints = [f"door:{n}" for n in range(20)]
    with servers(
        valkey.url,
        tmp_path,
        app="tests.apps.hesitant:app",
        probe=0.5,
        heartbeat=1,
        linger=0,
        history_size=KEPT,
    ) as both:
        baseline = Baseline.take(both)
        ports = [server.port for server in both]
        guests = [Guest(some_of(chance, ROOMS, 3), account, chance) for _ in range(80)]
        regulars = [Client([endpoints[n % 20]]) for n in range(40)]
        crowd = Crowd(ports, guests, chance, pause=(0, 0.1))
        flow = Crowd(ports, regulars, chance, pause=(0, 0.2))
        crowd.gather()
        flow.gather()
        publishers = [
            Publisher(valkey.url, account, lambda n: [ROOMS[n % 10]], rate=400, SSE_PUSH_HISTORY_SIZE=KEPT),
            Publisher(valkey.url, account, lambda n: [endpoints[n % 20]], rate=200, first=10**6),
        ]
        for publisher in publishers:
            publisher.start()
        crowd.scatter((0.1, min(stretched(1), 5)))
        flow.scatter((0.05, min(stretched(0.4), 2)))
        while crowd.cuts < 600 or flow.cuts < 600 or resumed(crowd) <= 300:
            crowd.step(0.005)
            flow.step(0.005)
        for publisher in publishers:
            publisher.stop()
        for each in (crowd, flow):
            each.stay()
            each.catch_up(account)
            each.close()
        leaks = baseline.leaks(valkey.client())
    visits: list[list[Connection]] = [[visit] for guest in guests for visit in guest.log]
    cut_short = account.verdict(visits, complete=False)
    stayed = account.verdict([guest.log[-1:] for guest in guests] + [client.log for client in regulars])
    figures.note(visits=len(visits), visits_of_doors=sum(len(client.log) for client in regulars))
    figures.note(cut_short=cut_short, stayed=stayed, LEAK=leaks)
    assert cut_short.resumed > 300, "the guests' cursors were not taken"
    assert cut_short.clean(), cut_short
    assert stayed.clean(), stayed
    assert cut_short.resets == stayed.resets == 0
    assert not leaks


def test_10_a_storm_of_reconnects_resumes_at_once(
    valkey: Valkey, chance: random.Random, figures: Counters, tmp_path: Path
) -> None:
    account = LogAccount()

    def now_and_then_others(channels: frozenset[str]) -> frozenset[str]:
        return some_of(chance, ROOMS, 4) if chance.random() < 0.3 else channels

    with servers(valkey.url, tmp_path, heartbeat=1, linger=0.5) as both:
        baseline = Baseline.take(both)
        clients = [Client(some_of(chance, ROOMS, 4)) for _ in range(150)]
        crowd = Crowd(
            [server.port for server in both], clients, chance,
            pause=(0, 0.1), other=now_and_then_others,
        )  # fmt: skip
        crowd.gather()
        publisher = Publisher(valkey.url, account, lambda n: [ROOMS[n % 10]], rate=300)
        publisher.start()
        crowd.scatter((0.2, min(stretched(2), 8)))
        crowd.until(lambda: crowd.cuts >= 900 and resumed(crowd) > 700, 900)
        publisher.stop()
        crowd.stay()
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
    figures.note(cuts=crowd.cuts, resume_p50=percentile(waits, 50), resume_p99=percentile(waits, 99))
    figures.note(verdict=verdict, LEAK=leaks)
    assert verdict.resumed > 700
    assert verdict.clean(), verdict
    assert verdict.resets == 0
    assert crowd.statuses() == {200}
    assert percentile(waits, 99) <= stretched(0.5)
    assert not leaks
