"""Another program writes into the broker's keys and publishes on its channels: only its victims notice."""

from __future__ import annotations

import random
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import redis

from flask_sse_push.protocol.cursor import MAX_ID
from tests.support.account.logs import LogAccount
from tests.support.crowd import Client, Crowd
from tests.support.fault_setup import Publisher, Valkey, servers, some_of
from tests.support.measurements import Measurements

CHANNELS = [f"room:{n}" for n in range(5)]
VICTIM = "bad"


def channels_of(serial: int) -> list[str]:
    """The channels of an event: each tenth goes to the victim."""
    return [VICTIM] if serial % 10 == 0 else [CHANNELS[serial % 5]]


def attack(client: Any, chance: random.Random) -> int:
    """Writes and publishes what no worker can read. Returns how many commands the server accepted."""
    epoch = client.hget("{sse:0}:state", "epoch")
    now = time.time_ns() // 1000
    ids = [-1, 0, 5, now - 10**7, now + 10**7, now + 10**12, 10**15 * 9, MAX_ID, 2**63, 10**40]
    entries = [b"%b %d 0 -\ndata: forged\n\n" % (epoch, id) for id in ids]
    junk = [
        b"",
        b"junk",
        b"\xff\xfe",
        bytes(range(256)),
        b"x" * 100_000,
        b"%b 7 0 -\ndata: x" % epoch,
        *entries,
    ]
    accepted = 0
    commands: list[tuple[Any, ...]] = [
        *(("PUBLISH", "{sse:0}:live:" + VICTIM, each) for each in junk),
        *(("PUBLISH", "{sse:0}:live:!control", each) for each in junk),
        *(("RPUSH", "{sse:0}:list:" + VICTIM, each) for each in chance.sample(junk, 3)),
        *(("LPUSH", "{sse:0}:list:!control", each) for each in chance.sample(junk, 3)),
        ("PUBLISH", "{sse:0}:live:!control", b"%b %d 0 -\n%b" % (epoch, now, b"[" * 100_000)),
        ("ZADD", "{sse:0}:heads", chance.choice(["-5", "1e300", "inf", "0.5"]), VICTIM),
        ("ZADD", "{sse:0}:workers", "1", b"\xff\n"),
    ]
    inboxes = client.execute_command("PUBSUB", "CHANNELS", "{sse:0}:inbox:*")
    commands += [("PUBLISH", inbox, each) for inbox in inboxes for each in junk]
    if chance.random() < 0.3:
        client.delete("{sse:0}:list:" + VICTIM)
        commands.append(("SET", "{sse:0}:list:" + VICTIM, "a text"))
    for command in commands:
        with suppress(redis.ResponseError):
            client.execute_command(*command)
            accepted += 1
    return accepted


def test_data_of_another_program_harm_only_the_channel_that_they_concern(
    valkey: Valkey, chance: random.Random, measurements: Measurements, tmp_path: Path
) -> None:
    account, attacks = LogAccount(), 0
    with servers(valkey.url, tmp_path, probe=0.5, heartbeat=1, linger=0.5) as both, valkey.client() as client:
        innocent = [Client(some_of(chance, CHANNELS, 2)) for _ in range(30)]
        victims = [Client([VICTIM]) for _ in range(4)]
        crowd = Crowd([server.port for server in both], [*innocent, *victims], chance, pause=(0, 0.2))
        crowd.open_all()
        publisher = Publisher(valkey.url, account, channels_of, rate=100)
        publisher.start()
        crowd.run(0.3)
        for _ in range(15):
            attacks += attack(client, chance)
            for lost in chance.sample(crowd.clients, 3):  # these clients open new streams on damaged data
                crowd.lose(lost, reset=True)
            crowd.run(0.2)
        publisher.stop()
        crowd.catch_up(account)
        crowd.close()
        logs = "".join(server.log.read_text() for server in both)
    verdict = account.verdict([each.log for each in innocent])
    told = account.verdict([each.log for each in victims])
    measurements.note(attacks=attacks, verdict=verdict, victims=told)
    assert attacks >= 1000, "the server refused the attacks"
    assert "{sse:0}:list:bad was not written by flask_sse_push" in logs, "no worker has met the data"
    assert verdict.clean(), verdict
    assert verdict.resets == 0, "clients of other channels noticed the attack"
    assert told.clean(), told
    assert told.resets >= 1
    assert crowd.statuses() == {200}
    assert "Traceback" not in logs
    assert publisher.failures == 0
    for key in ("{sse:0}:list:bad was", "a message on the channel 'bad' was"):
        assert logs.count(key) <= 2, "each of the two workers says it once"


def test_a_forged_id_just_ahead_of_the_clock_costs_no_client_an_event(
    valkey: Valkey, chance: random.Random, measurements: Measurements, tmp_path: Path
) -> None:
    """A client that got a forged id as its cursor would lose the events up to this id when it comes back."""
    account, attacks = LogAccount(), 0
    with servers(valkey.url, tmp_path, probe=0.5, heartbeat=1, linger=0.5) as both, valkey.client() as client:
        victims = [Client([VICTIM]) for _ in range(20)]
        crowd = Crowd([server.port for server in both], victims, chance, pause=(0.15, 0.3))
        crowd.open_all()
        publisher = Publisher(valkey.url, account, lambda serial: [VICTIM], rate=100)
        publisher.start()
        epoch = client.hget("{sse:0}:state", "epoch")
        inboxes = client.execute_command("PUBSUB", "CHANNELS", "{sse:0}:inbox:*")
        for _ in range(10):
            ahead = time.time_ns() // 1000 + chance.randint(40_000, 95_000)
            attacks += client.publish("{sse:0}:live:" + VICTIM, b"%b %d 0 -\ndata: 0\n\n" % (epoch, ahead))
            for inbox in inboxes:
                attacks += client.publish(inbox, b"%b %d" % (epoch, ahead))
            crowd.run(0.03)
            for lost in chance.sample(crowd.clients, 10):
                crowd.lose(lost, reset=True)
            crowd.run(0.3)
        publisher.stop()
        crowd.catch_up(account)
        crowd.close()
        logs = "".join(server.log.read_text() for server in both)
    verdict = account.verdict([each.log for each in victims])
    measurements.note(attacks=attacks, verdict=verdict)
    assert attacks >= 10 * len(both), "no worker has got the forged messages"
    assert "another program has published it" in logs
    assert verdict.clean(), verdict
