"""The faults of the soak: what breaks links, workers and channels, forks workers and takes rights away."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import httpx

from flask_sse_push import BrokerUnavailable, MessageAnnouncer
from tests.support.account.logs import LogAccount
from tests.support.account.resets import Fault
from tests.support.deadline import eventually
from tests.support.fault_setup import Valkey
from tests.support.processes import Gunicorn, has_ended

from .visitors import BAD, FULL, FULL_EVENTS, FULL_SIZE, Member, Revoke

#: The channel that gets foreign data although clients are checked on it, and its events a second.
HURT, HURT_RATE = "hurt:0", 10
#: The fault that writes foreign data to this channel.
FOREIGN_DATA = "hurt"
#: The names of faults that are left out.
WITHOUT = os.environ.get("SOAK_WITHOUT", "").split()
#: At most so many seconds after `/fork` a child publishes. See `tests.apps.troubled`.
CHILD = 3.0


class Every:
    """Calls `act` once every `seconds`, provided that `is_due` is called often."""

    def __init__(self, seconds: float, act: Callable[[], object]) -> None:
        self._seconds = seconds
        self.act = act
        self._next_at = time.monotonic() + seconds

    def is_due(self) -> bool:
        """Whether it is time to call `act`."""
        due = time.monotonic() >= self._next_at
        self._next_at += self._seconds * due
        return due


class Troubles(threading.Thread):
    """Causes faults until `stop`. What happened is counted in `times`.

    :param rights: the folder with the rights, see `tests.apps.troubled`.
    :param seconds: how long the soak takes.
    """

    def __init__(
        self,
        servers: Sequence[Gunicorn],
        valkey: Valkey,
        rights: Path,
        chance: random.Random,
        seconds: float,
        kept: int,
    ) -> None:
        super().__init__(daemon=True)
        self.times: Counter[str] = Counter()
        self.faults: list[Fault] = []  # what was done, in order of time
        self.account = LogAccount()
        self.members: Sequence[Member] = ()
        self.rooms: Sequence[str] = ()
        self.first = 0  # serial number of the next child's event
        self.errors: list[BaseException] = []
        self._servers = servers
        self._rights = rights
        self._chance = chance
        self._redis = valkey.client()
        self._announcer = MessageAnnouncer.from_url(valkey.url, SSE_PUSH_HISTORY_SIZE=max(kept, FULL_EVENTS))
        self._children: list[int] = []
        self._forked_at = 0.0
        self._running = threading.Event()  # cleared while the account of a round is closed
        self._stopped = False
        self._lock = threading.Lock()
        causes = {
            "links": Every(15, self._kill_links),
            "reload": Every(seconds / 8, self._reload),
            "worker": Every(seconds / 2 + 20, self._kill_worker),
            "fork": Every(4, self._fork),
            "spoil": Every(2, self._spoil),
            FOREIGN_DATA: Every(9, self._hurt),
            "revoke": Every(2, self._revoke),
        }
        self._causes = {name: cause for name, cause in causes.items() if name not in WITHOUT}

    def run(self) -> None:
        try:
            while not self._stopped:
                self._running.wait(1)
                with self._lock:
                    if self._running.is_set() and not self._stopped:
                        self._cause_what_is_due()
                time.sleep(0.05)
        except Exception as error:
            self.errors.append(error)

    def _cause_what_is_due(self) -> None:
        for name, cause in self._causes.items():
            if cause.is_due():
                self.faults.append(Fault(name, time.monotonic()))
                cause.act()

    def begin(self, account: LogAccount, members: Sequence[Member], rooms: Sequence[str], first: int) -> None:
        """Begins a round.

        :param first: serial number of the first event that a child publishes.
        """
        self.account, self.members, self.rooms, self.first = account, members, rooms, first
        for member in members:
            (self._rights / f"{member.user} {member.channel}").touch()
        self._running.set()

    def pause(self) -> None:
        """Ends a round. Waits until all children have published."""
        self._running.clear()
        with self._lock:
            children, self._children = self._children, []
        eventually(lambda: all(map(has_ended, children)), 30)
        eventually(lambda: time.monotonic() > self._forked_at + CHILD, 30)

    def stop(self) -> None:
        """Ends the thread. Raises the exception that ended it before, if there is one."""
        self._stopped = True
        self._running.set()
        self.join(60)
        for error in self.errors:
            raise error

    def fill(self) -> None:
        """Fills the channels of which big replays ask for."""
        for n in range(FULL):
            events = [{"data": "x" * FULL_SIZE, "channel": f"full:{n}"}] * 100
            for _ in range(FULL_EVENTS // 100):
                self._announcer.publish_many(events)

    # -- links and workers ------------------------------------------------------------------------------

    def _kill_links(self) -> None:
        self.times["links_killed"] += int(self._redis.client_kill_filter(_type="pubsub"))

    def _reload(self) -> None:
        """Reloads each server once. After that, the workers live long enough to show whether memory grows."""
        if self.times["reloads"] < len(self._servers):
            self._servers[self.times["reloads"]].process.send_signal(signal.SIGHUP)
            self.times["reloads"] += 1

    def _kill_worker(self) -> None:
        if not self.times["workers_killed"]:
            os.kill(self._servers[0].worker_pids()[0], signal.SIGKILL)
            self.times["workers_killed"] += 1

    def _fork(self) -> None:
        n, self.first = self.first, self.first + 1
        channel = self._chance.choice(self.rooms)
        self.account.doubt([channel], n)
        server = self._chance.choice(self._servers)
        how = self._chance.choice(["os", "multiprocessing"])
        self._forked_at = time.monotonic()
        with suppress(httpx.HTTPError):  # the worker may be killed
            wanted: dict[str, str | int] = {"n": n, "channel": channel, "how": how}
            answer = httpx.get(
                f"{server.url}/fork", params=wanted, headers={"Connection": "close"}, timeout=30
            )
            if answer.status_code == 200:
                self._children.append(int(answer.text))
                self.times[f"{how}_forks"] += 1
        self._forked_at = time.monotonic()

    # -- foreign data -----------------------------------------------------------------------------------

    def _spoil(self) -> None:
        """Writes foreign data to a channel on which nobody is checked."""
        channel = f"bad:{self._chance.randrange(BAD)}"
        key = f"{{sse:0}}:list:{channel}"
        what = self._chance.choice(["type", "entry", "message", "heal"])
        self.times[f"bad_{what}"] += 1
        if what == "message":
            self._redis.publish(f"{{sse:0}}:live:{channel}", self._junk())
            return
        self._redis.delete(key)
        if what == "type":
            self._redis.set(key, "not a list")
        elif what == "entry":
            self._redis.rpush(key, self._junk())
        else:
            with suppress(BrokerUnavailable):
                self._announcer.publish("good", channel=channel)

    def _hurt(self) -> None:
        """Writes foreign data to a channel on which clients are checked: they must get a reset."""
        self.times["hurts"] += 1
        if self._chance.random() < 0.5:
            self._redis.publish(f"{{sse:0}}:live:{HURT}", self._junk())
        else:
            self._redis.rpush(f"{{sse:0}}:list:{HURT}", self._junk())

    def _junk(self) -> bytes:
        epoch = self._redis.hget("{sse:0}:state", "epoch") or b"0"
        random_bytes = self._chance.randbytes(self._chance.randrange(200))
        heads = [b"%b -5 0 -", b"%b 5 x -", b"%b 99999999999999999999999 0 -", b"%b 5 0 t=x", b"%b 5"]
        head = self._chance.choice(heads) % epoch
        return self._chance.choice([b"", random_bytes, head + b"\ndata: junk\n\n", head + random_bytes])

    # -- rights -----------------------------------------------------------------------------------------

    def _revoke(self) -> None:
        keeping = [member for member in self.members if member.revoked is None]
        if not keeping:
            return
        member = self._chance.choice(keeping)
        if self._chance.random() < 0.5:
            with suppress(httpx.HTTPError):
                member.take_ticket(self._chance.choice(self._servers).url)
        (self._rights / f"{member.user} {member.channel}").unlink()
        channel = None if self._chance.random() < 0.3 else member.channel
        deadline = time.monotonic() + 120
        while not self._is_revoked(member.user, channel):
            assert time.monotonic() < deadline, "the broker has acknowledged no revoke for two minutes"
            self.times["failed_revokes"] += 1
        member.revoked = Revoke(member.user, member.channel, time.monotonic())
        self.times["revokes"] += 1
        self.times["tickets"] += member.ticket is not None

    def _is_revoked(self, user: str, channel: str | None) -> bool:
        """Tries to take a right away; returns whether the broker acknowledged this."""
        try:
            self._announcer.revoke(user, channel)
        except BrokerUnavailable:  # the broker is busy with a big replay
            return False
        return True
