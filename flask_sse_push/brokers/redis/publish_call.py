"""Calls of publish.lua: their arguments, and what their replies say."""

from __future__ import annotations

import hashlib
import itertools
import secrets
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from ...config import ChannelPolicies
from ...errors import BrokerUnavailable
from ...protocol.cursor import Cursor
from ...protocol.printable import printable
from .. import forks
from ..base import repeated_id
from ..group_commit import Request
from .client import milliseconds
from .direct import command, packed
from .scripts import script

#: How long Redis remembers a publish without an idempotency id: at least so many seconds, and so many times
#: the publish timeout. A second try that came later would store the events twice.
RETRY_MEMORY, RETRY_MEMORY_SHARE = 10.0, 5.0
#: Tells publish.lua whether a call has an idempotency id, or else whether this is its first try.
NAMED, NEW, AGAIN = (packed([word]) for word in (b"named", b"new", b"again"))
#: `PublishScript` remembers the packed words of at most this many channels, then forgets all.
MOST_CHANNELS = 1000


class PublishReply(NamedTuple):
    """A reply of publish.lua."""

    epoch: str
    #: The id of the first event. Each further event has an id that is one higher.
    first: int
    #: How many events the call has stored. 0 may also mean that nobody knows.
    stored: int
    #: Keys with data of another program, each followed by the problem.
    foreign: Sequence[bytes] = ()
    #: The digest of the policies in the state if it is another one; empty if it is the same; None if unknown.
    differs: bytes | None = b""
    #: Why the call has stored no further events; "" if it has stored all.
    problem: str = ""

    @classmethod
    def read(cls, reply: Any) -> PublishReply:
        """Reads the reply as redis-py returns it."""
        if isinstance(reply, bytes):
            epoch, first, count = reply.split()
            return cls(epoch.decode(), int(first), int(count))
        text, foreign, differs, problem = reply
        epoch, first, count = text.split()
        return cls(
            epoch.decode(),
            int(first),
            int(count),
            foreign,
            differs,
            problem.decode(errors="replace"),
        )


class PublishCall:
    """One run of publish.lua. It stores the events of one request, or of several without idempotency ids.

    :param fresh: the name and the secret of the epoch that the call begins, if it must begin one.
    :param before: the command, packed, before the word "named", "new" or "again".
    :param after: the command after this word: channels and events.
    """

    __slots__ = ("_after", "_before", "fresh", "requests", "tries")

    def __init__(self, requests: Sequence[Request], fresh: bytes, before: bytes, after: bytes) -> None:
        self.requests = requests
        self.fresh = fresh
        self._before, self._after = before, after
        self.tries = 0

    def next_try(self) -> bytes:
        """Returns the command for the next try. From the second try on, it says that a try may have run."""
        self.tries += 1
        kind = NAMED if self.requests[0].once is not None else NEW if self.tries == 1 else AGAIN
        return self._before + kind + self._after

    def settle(self, reply: PublishReply) -> Sequence[Request]:
        """Gives the requests their outcomes. Returns the requests that the call has not tried to store."""
        request, size = self.requests[0], len(self.requests[0].publications)
        if request.once is not None and not reply.problem:
            if reply.stored in (0, size):
                request.outcome = cursors(reply, 0, size)
            else:
                request.outcome = repeated_id(request.once, reply.stored, size)
            return ()
        first = 0
        for at, request in enumerate(self.requests):
            size = len(request.publications)
            if first + size > reply.stored:
                if not reply.problem and first == reply.stored:
                    return self.requests[at:]
                problem = printable(reply.problem) or "the script has stored some of the events only"
                request.outcome = BrokerUnavailable(f"Redis: {problem}")
                return self.requests[at + 1 :]
            request.outcome = cursors(reply, first, size)
            first += size
        return ()


def cursors(reply: PublishReply, first: int, count: int) -> list[Cursor]:
    """Returns the cursors of `count` events of a call, from the event number `first` on."""
    return [Cursor(reply.epoch, reply.first + first + n) for n in range(count)]


class PublishScript:
    """Makes the calls of publish.lua for one thread. Forgets its random words in the child of a fork.

    :param base: how the keys begin.
    :param send: the name of the command that sends, PUBLISH or SPUBLISH.
    :param fresh: returns the name and the secret of a new epoch.
    :param timeout: how long `publish` tries at most, in seconds.
    """

    def __init__(
        self, base: str, policies: ChannelPolicies, send: str, fresh: Callable[[], str], timeout: float
    ) -> None:
        self._text = script("state", "publish", first=["publish_one"]).encode()
        self._base = base
        self._policies = policies
        sha = hashlib.sha1(self._text, usedforsecurity=False).hexdigest()
        self._evalsha = packed([b"EVALSHA", sha.encode()])
        self._state_keys = packed([f"{base}state".encode(), f"{base}heads".encode()])
        constants = (
            f"{base}live:",
            milliseconds(policies.longest_ttl),
            policies.history_digest,
            send,
        )
        self._constants = packed([str(each).encode() for each in constants])
        memory = max(RETRY_MEMORY, RETRY_MEMORY_SHARE * timeout)
        self._named, self._unnamed = (
            packed([b"%d" % milliseconds(each)]) for each in (policies.default_ttl, memory)
        )
        self._channels: dict[str, tuple[bytes, bytes]] = {}
        self._fresh = fresh
        self._spare: list[bytes] = []  # names and secrets of epochs that no call has begun
        self.after_fork()
        forks.watch(self)

    def after_fork(self) -> None:
        """See `forks.Part.after_fork`. The child must not use the random words of its parent."""
        self._process, self._calls = secrets.token_hex(8), itertools.count()
        self._spare.clear()

    def settle(self, call: PublishCall, reply: PublishReply) -> list[PublishCall]:
        """Gives the requests of a call their outcomes. Returns calls for those that it has left out."""
        fresh = call.fresh
        if call.tries == 1 and not self._spare and not fresh.startswith(reply.epoch.encode() + b" "):
            self._spare.append(fresh)  # random words take long to make
        left = call.settle(reply)
        return self.calls(left) if left else []

    def load(self) -> bytes:
        """Returns the command that makes the script known to a server."""
        return command(3, packed([b"SCRIPT", b"LOAD", self._text]))

    def calls(self, requests: Sequence[Request]) -> list[PublishCall]:
        """Returns the calls that store requests in their order. Requests without ids share a call."""
        if len(requests) == 1:
            return [self.call(requests)]
        calls: list[PublishCall] = []
        for is_named, some in groupby(requests, lambda each: each.once is not None):
            together = list(some)
            calls += map(self.call, [[each] for each in together] if is_named else [together])
        return calls

    def call(self, requests: Sequence[Request]) -> PublishCall:
        """Returns one call that stores the events of several requests."""
        channels: dict[str, int] = {}
        events: list[bytes] = []
        for request in requests:
            for each in request.publications:
                at = [channels.setdefault(name, len(channels) + 1) for name in each.lists]
                meta = each.meta()
                if meta == "-" and len(at) == 1:
                    events += b"%d" % at[0], each.body
                else:
                    events += f"{meta} {' '.join(map(str, at))}".encode(), each.body
        count = len(channels)
        lists, names = zip(*map(self._words_of, channels), strict=True)
        once = requests[0].once
        key = once or f"~{self._process}{next(self._calls):x}"  # an app's idempotency id has no `~`
        fresh = self._spare.pop() if self._spare else self._fresh().encode()
        before = b"*%d\r\n%b%b%b%b%b%b%b%b" % (
            14 + 3 * count + len(events),
            self._evalsha,
            packed([b"%d" % (3 + count)]),
            self._state_keys,
            packed([f"{self._base}once:{key}".encode()]),
            b"".join(lists),
            self._constants,
            packed([fresh]),
            self._unnamed if once is None else self._named,
        )
        after = packed([b"%d" % count]) + b"".join(names) + packed(events)
        return PublishCall(requests, fresh, before, after)

    def _words_of(self, channel: str) -> tuple[bytes, bytes]:
        """Returns two parts of a call: the key of the channel's list, and its name with the list's limits."""
        words = self._channels.get(channel)
        if words is None:
            if len(self._channels) >= MOST_CHANNELS:
                self._channels.clear()
            words = self._channels[channel] = (
                packed([f"{self._base}list:{channel}".encode()]),
                packed([channel.encode(), self._policies[channel].kept.encode()]),
            )
        return words
