"""The clients of the soak besides those that the account checks: they ask for what makes trouble."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import httpx

from tests.support.account.logs import LogAccount
from tests.support.crowd import Client

_serials = itertools.count(1)


class Visitor(Client):
    """A client whose events nobody checks.

    :param query: the query of its requests. `{n}` in it becomes a number that no request had before.
    """

    def __init__(self, query: str, *, gzip: bool = False) -> None:
        super().__init__(())
        self._query = query
        self._gzip = gzip

    def request(self) -> str:
        encoding = "Accept-Encoding: gzip\r\n" if self._gzip else ""
        return f"GET /stream?{self._query.format(n=next(_serials))} HTTP/1.1\r\nHost: test\r\n{encoding}\r\n"

    def feed(self, data: bytes) -> None:
        """Reads only the status."""
        if self.log[-1].status is None and data.startswith(b"HTTP/1.1 "):
            self.log[-1].status = int(data[9:12])


#: How many channels are full of events, and how many events of how many bytes each of them has.
FULL, FULL_EVENTS, FULL_SIZE = 50, 200, 2000
#: How many channels get foreign data.
BAD = 10


def big_readers() -> list[Visitor]:
    """Clients that ask for big replays."""
    full = ",".join(f"full:{n}" for n in range(FULL))
    return [Visitor(f"channels={full}&last=1000", gzip=gzip) for gzip in (False, True)]


def visitors() -> list[Visitor]:
    """Clients on channels with foreign data, slow rules and rules that raise, and on new channels."""
    bad = [f"room:{n},bad:{n},bad:{(n + 3) % BAD}" for n in range(BAD)]
    return [
        *(Visitor(f"channels={names}&last=10") for names in bad),
        *(Visitor(f"channels=slow:{n},room:{n}&user=slow-{{n}}") for n in range(10)),
        *(Visitor(f"channels=unlucky:{n},room:{n}&user=unlucky-{{n}}") for n in range(5)),
        *(
            Visitor(f"channels=visit:{{n}},room:{n}&batch=100&user=visitor-{{n}}", gzip=True)
            for n in range(10)
        ),
    ]


@dataclass
class Revoke:
    """A right that was taken away. `at` is the monotonic time at which `revoke` returned."""

    user: str
    channel: str
    at: float


class Member(Client):
    """A user with a right to one channel, who keeps asking for it after the right was taken away."""

    def __init__(self, channel: str, room: str) -> None:
        super().__init__([channel, room])
        self.user = f"member-{next(_serials)}"
        self.channel = channel
        self.room = room
        self.revoked: Revoke | None = None
        self.ticket: str | None = None

    def take_ticket(self, url: str) -> None:
        """Gets a ticket for the channel, which the member will use after the right was taken away."""
        wanted = {"user": self.user, "channel": self.channel}
        answer = httpx.get(f"{url}/ticket", params=wanted, headers={"Connection": "close"}, timeout=60)
        self.ticket = answer.text if answer.status_code == 200 else None

    def request(self) -> str:
        if self.revoked is not None and self.ticket is not None:
            ticket, self.ticket = self.ticket, None
            return f"GET /stream?ticket={ticket} HTTP/1.1\r\nHost: test\r\n\r\n"
        if self.log[-2:-1] and self.log[-2].status not in (200, None):
            self.channels = frozenset({self.room})  # the whole request was refused
        cursor = f"Last-Event-ID: {self.cursor}\r\n" if self.cursor else ""
        query = f"channels={','.join(sorted(self.channels))}&user={self.user}"
        return f"GET /stream?{query} HTTP/1.1\r\nHost: test\r\n{cursor}\r\n"

    def late(self, account: LogAccount) -> list[int]:
        """The serial numbers of events of the channel that were published after the revoke, and came."""
        if self.revoked is None:
            return []
        of_channel = {event.serial for event in account.events if self.channel in event.channels}
        after = {n for n in of_channel if account.sent[n] > self.revoked.at}
        return [got.serial for connection in self.log for got in connection.got() if got.serial in after]
