"""The long test, FAULTS 25. Only `make soak` runs it. It takes half an hour, or SOAK_SECONDS.

300 clients on both transports (SOAK_CLIENTS), whose connections last 1 to 20 seconds, get 200 events a second
(SOAK_RATE). Meanwhile the thread of `troubles` breaks links, workers and channels, forks workers and takes
rights away. To find out which of them breaks the soak, name some to leave out in SOAK_WITHOUT. The app,
`tests.apps.troubled`, has slow rules, and callbacks that raise. The clients of `visitors` make the app call
them, and ask for big replays.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.account.logs import LogAccount
from tests.support.account.resets import Causes, Fault, causes_of
from tests.support.account.verdict import Verdict
from tests.support.crowd import Client, Crowd
from tests.support.deadline import eventually
from tests.support.fault_setup import Baseline, Publisher, Valkey, allow_files, look_inside, servers, some_of
from tests.support.measurements import Measurements
from tests.support.memory import slope
from tests.support.processes import Gunicorn

from ..conftest import StartValkey
from .troubles import FOREIGN_DATA, HURT, HURT_RATE, WITHOUT, Troubles
from .visitors import Member, big_readers, visitors

SECONDS = float(os.environ.get("SOAK_SECONDS", "1800"))
CLIENTS = int(os.environ.get("SOAK_CLIENTS", "300"))
RATE = float(os.environ.get("SOAK_RATE", "200"))
#: Seconds after which the test checks the account and begins a new one, with new clients.
ROUND = 120.0
#: At most so many seconds after a round all clients must have the newest events.
CATCH_UP = 240.0
#: The first seconds of a worker, in which its memory may grow: histories fill, the allocator settles.
WARM_UP = min(240.0, SECONDS / 8)
#: A run must last this many seconds to check that memory does not grow. Shorter runs only print the growth.
LONG = 1800.0
CHANNELS = [f"room:{n}" for n in range(50)]
CLUBS = [f"club:{n}" for n in range(5)]
#: Events that a channel keeps: so few that the workers' channel caches are full after the warm-up.
KEPT = 200
#: The log line of a worker that could not read the events of a channel on which clients are checked.
UNREADABLE = re.compile(rf"events of channels .*\b(room:\d+|{HURT})\b.* cannot be read")
#: Errors with a traceback that `tests.apps.troubled` causes.
OWN_ERRORS = (
    "ValueError: trouble",
    "gevent.timeout.Timeout: 1 second",
    "SystemExit: trouble",
    # In children of `os.fork`: a thread that was starting, and Python's end of multiprocessing.
    "KeyError: <Thread(",
    "can only join a child process",
)


#: For each worker, when its memory was read, and the numbers of `/memory`.
Samples = defaultdict[int, list[tuple[float, dict[str, int]]]]


@dataclass
class Outcome:
    """What came of the rounds so far."""

    verdict: Verdict = field(default_factory=Verdict)
    resets: Causes = field(default_factory=Causes)
    hurt: Verdict = field(default_factory=Verdict)  # of the clients on the channel that gets foreign data
    hurt_resets: Causes = field(default_factory=Causes)
    published: int = 0
    by_children: int = 0  # events that forked children published
    cuts: int = 0
    behind: int = 0  # clients that had not caught up at the end of a round: the account misses their events
    late: int = 0  # events that came although they were published after a revoke
    statuses: set[int] = field(default_factory=set)
    raised: set[str] = field(default_factory=set)  # kinds of the app's functions that raised


@pytest.mark.timeout(SECONDS + 900)
def test_25_soak(
    start_valkey: StartValkey,
    chance: random.Random,
    measurements: Measurements,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rights = tmp_path / "rights"
    rights.mkdir()
    monkeypatch.setenv("RIGHTS", str(rights))
    valkey = start_valkey(appendonly="no")
    allow_files(4000)
    samples: Samples = defaultdict(list)
    settings: dict[str, Any] = {
        "linger": 2, "heartbeat": 5, "retry": 1, "history_size": KEPT, "recheck": 2, "write_timeout": 10,
        "public_channels": "room:*,bad:*,full:*,hurt:*,visit*", "presence_channels": "visit:*",
    }  # fmt: skip
    with servers(valkey.url, tmp_path, app="tests.apps.troubled:app", workers=2, **settings) as both:
        troubles = Troubles(both, valkey, rights, chance, SECONDS, KEPT)
        troubles.fill()
        play_round(both, valkey, chance, None, Outcome(), seconds=5)  # starts all threads
        baseline = Baseline.take(both, 2)
        troubles.start()
        began, first, outcome = time.monotonic(), 0, Outcome()
        while (left := began + SECONDS - time.monotonic()) > 0:
            play_round(both, valkey, chance, troubles, outcome, min(ROUND, left), first)
            print(f"{time.monotonic() - began:.0f} s: {outcome.verdict}, {outcome.late} late", flush=True)
            print(f"    resets: {outcome.resets}\n    on {HURT}: {outcome.hurt_resets}", flush=True)
            take_samples(both, samples)
            first += 10**7
        troubles.stop()
        leaks = baseline.leaks(valkey.client(), 20)
        logs = [server.log.read_text() for server in both]
    # The allocators keep freed memory in pieces, so resident memory grows while backlogs come and go.
    # A leak makes the used memory grow. `memory.py` measures the resident memory over two hours.
    resident, used = growth(samples, "resident_kb"), growth(samples, "used_kb")
    foreign = [found for text in logs for found in foreign_tracebacks(text)]
    measurements.note(seconds=SECONDS, published=outcome.published, cuts=outcome.cuts, **troubles.times)
    measurements.note(by_children=outcome.by_children, verdict=outcome.verdict, LEAK=leaks)
    measurements.note(late_after_revoke=outcome.late, hurt=outcome.hurt, raised=sorted(outcome.raised))
    unreadable = [line for text in logs for line in text.splitlines() if UNREADABLE.search(line)]
    measurements.note(unreadable=len(unreadable), resets=outcome.resets, hurt_resets=outcome.hurt_resets)
    measurements.note(growth_kb_in_10_minutes=resident, of_it_used=used)
    if not WITHOUT:
        assert_all_happened(troubles, outcome)
    assert not outcome.behind, f"{outcome.behind} clients have not caught up in {CATCH_UP:g} s"
    assert outcome.verdict.clean(), outcome.verdict
    assert outcome.hurt.clean(), outcome.hurt
    assert not outcome.resets.unexplained, unreadable[:5]
    assert not outcome.hurt_resets.unexplained, unreadable[:5]
    assert outcome.late == 0
    assert outcome.statuses == {200}
    assert not leaks
    if SECONDS >= LONG:
        assert len(used) >= 3, "too few workers lived long"
        assert max(used) < 1000
    assert not foreign


def assert_all_happened(troubles: Troubles, outcome: Outcome) -> None:
    times = troubles.times
    assert times["links_killed"] >= SECONDS / 20
    assert times["workers_killed"] == 1
    assert min(times[name] for name in ("reloads", "hurts", "revokes", "tickets")) > 0, times
    assert min(times[name] for name in ("bad_type", "bad_entry", "bad_message")) > 0, times
    forks = times["os_forks"], times["multiprocessing_forks"]
    assert min(forks) > 0
    # No client may listen to the channel of a child, and gunicorn's code may end a child before it publishes.
    assert outcome.by_children >= min(30, 0.5 * sum(forks)), "children did not publish"
    assert outcome.hurt.resets > 0
    assert outcome.raised == {"loader", "receiver", "rule"}


def play_round(
    both: Sequence[Gunicorn],
    valkey: Valkey,
    chance: random.Random,
    troubles: Troubles | None,
    outcome: Outcome,
    seconds: float,
    first: int = 0,
) -> None:
    """Runs new clients, then adds to `outcome` what they got.

    :param first: serial number of the first event.
    """
    account, hurt_account = LogAccount(), LogAccount()
    ports = [server.port for server in both]
    named = [Client(some_of(chance, CHANNELS, 3)) for _ in range(CLIENTS)]
    hurt = [Client([HURT]) for _ in range(10)]
    members = [Member(chance.choice(CLUBS), chance.choice(CHANNELS)) for _ in range(40)]
    checked, crowd_hurt = (Crowd(ports, clients, chance) for clients in (named, hurt))
    visits = Crowd(ports, visitors(), chance, life=(0.5, 5))
    replays = [] if "replay" in WITHOUT else big_readers()
    big = Crowd(ports, replays, chance, life=(1, 3), pause=(2, 8))
    coming = Crowd(ports, members, chance, life=(0.2, 4), pause=(0, 0.2))
    crowds = checked, crowd_hurt, visits, big, coming
    for crowd in (checked, crowd_hurt):
        crowd.open_all()
        crowd.start_cutting((1, 20))
    many = max(1, round(RATE / 20))
    publisher = Publisher(
        valkey.url, account, lambda n: [CHANNELS[n % 50]], rate=RATE, many=many, first=first,
        SSE_PUSH_HISTORY_SIZE=KEPT,
    )  # fmt: skip
    others = [
        Publisher(valkey.url, account, lambda n: [CLUBS[n % 5]], rate=50, first=first + 10**6),
        Publisher(valkey.url, hurt_account, lambda n: [HURT], rate=HURT_RATE, first=first),
    ]
    for each in (publisher, *others):
        each.start()
    if troubles is not None:
        troubles.begin(account, members, CHANNELS, first + 2 * 10**6)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        checked.step(0.02)
        for crowd in crowds[1:]:
            crowd.step(0)
    for crowd in (visits, big, coming):
        crowd.close()
    if troubles is not None:
        troubles.pause()
    for each in (publisher, *others):
        each.stop()
    for crowd, of_crowd in ((checked, account), (crowd_hurt, hurt_account)):
        crowd.stop_cutting()
        outcome.behind += crowd.catch_up(of_crowd, CATCH_UP)
        crowd.close()
        outcome.statuses |= crowd.statuses()
    note(outcome, account, named, members)
    outcome.hurt.add(hurt_account.verdict([client.log for client in hurt]))
    faults = troubles.faults if troubles else []
    note_resets(outcome.resets, account, named, faults)
    note_resets(outcome.hurt_resets, hurt_account, hurt, faults, foreign=FOREIGN_DATA)
    outcome.cuts += sum(crowd.cuts for crowd in crowds)
    note_raised(both, outcome)


def note(outcome: Outcome, account: LogAccount, named: Sequence[Client], members: Sequence[Member]) -> None:
    """Adds what checked clients and members got."""
    outcome.verdict.add(account.verdict([client.log for client in named]))
    outcome.published += len(account.events)
    outcome.late += sum(len(member.late(account)) for member in members)
    got = {got.serial for client in named for connection in client.log for got in connection.got()}
    outcome.by_children += len(got & account.unknown.keys())


def note_resets(
    causes: Causes, account: LogAccount, clients: Sequence[Client], faults: Sequence[Fault], foreign: str = ""
) -> None:
    """Adds the causes of the resets that clients got."""
    logs = [client.log for client in clients]
    causes.add(causes_of(account, logs, kept=KEPT, faults=faults, foreign=foreign))


def note_raised(both: Sequence[Gunicorn], outcome: Outcome) -> None:
    """Asks each server several times which functions raised, so that all its workers answer."""
    for server in [*both] * 8:
        with suppress(httpx.HTTPError):
            answer = httpx.get(f"{server.url}/raised", headers={"Connection": "close"}, timeout=30)
            outcome.raised |= answer.json().keys()


def take_samples(both: Sequence[Gunicorn], samples: Samples) -> None:
    """Reads and prints the memory of each worker, when no client is there and no channel cache."""
    for server in both:
        eventually(lambda: not any(held["channels"] for held in look_inside(server, 2).values()))  # noqa: B023
        for pid, held in look_inside(server, 2, "memory").items():
            samples[pid].append((time.monotonic(), held))
            print(f"    {pid}: " + ", ".join(f"{name} {n}" for name, n in held.items()), flush=True)


def growth(samples: Samples, name: str) -> list[float]:
    """By how many kB a number grew in ten minutes, for each worker that lived long enough."""
    found = []
    for points in samples.values():
        settled = [(at, held[name]) for at, held in points if at >= points[0][0] + WARM_UP]
        if len(settled) >= 4:
            found.append(slope(settled) * 600)
    return found


def foreign_tracebacks(text: str) -> list[str]:
    """The tracebacks in a log, without those of `OWN_ERRORS`."""
    blocks = text.split("Traceback (most recent call last):\n")[1:]
    return [block for block in blocks if not any(error in block for error in OWN_ERRORS)]
