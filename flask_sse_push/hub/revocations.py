"""The revocations that a worker remembers: which rights of which users have ended.

A rule of the app takes time to answer. If a right is revoked meanwhile, the answer is out of date before it
is used. So a worker remembers each revocation, and compares it with every answer that it uses later: the
answer counts only if the rule was asked after the revocation. An answer that is older than all remembered
revocations does not count at all.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..history.history_cache import HistoryCache
from ..protocol import cursor
from ..protocol.cursor import belongs

#: How long a worker remembers a revocation, in seconds. So a rule's answer counts for at most so long after
#: the rule was asked.
KEPT = 600.0
#: At most how many revocations a worker remembers; it forgets the oldest first.
MAX_KEPT = 10_000


class Revocation(NamedTuple):
    """The end of a right: a user may no longer listen to a channel, or to any channel."""

    user_id: str
    channel: str | None  # None: all channels
    reason: str  # `revoked` or `logout`
    id: int  # the position of the command; 0: before every position that is valid now
    at: float  # the monotonic time at which this worker got the command, or at which it was published

    @classmethod
    def of(cls, arguments: Mapping[str, Any], id: int, at: float) -> Revocation:
        """Returns the revocation in the arguments of a `revoke` command."""
        channel, reason = arguments.get("channel"), str(arguments.get("reason", "revoked"))
        return cls(str(arguments["user_id"]), channel, reason, id, at)


class Revocations:
    """The revocations of the last KEPT seconds that one worker knows. The caller holds the hub's lock.

    :param history_cache: the history cache of the shard that has the commands.
    """

    def __init__(self, history_cache: HistoryCache) -> None:
        self._history_cache = history_cache
        self._all: deque[Revocation] = deque()  # the oldest first
        self._of_user: dict[str, deque[Revocation]] = {}
        # The worker remembers every revocation that was published after the position `_after`, and every one
        # that it got after the monotonic time `_since`.
        self._after, self._since = 0, 0.0

    def add(self, revocation: Revocation) -> None:
        """Remembers a revocation."""
        self._all.append(revocation)
        self._of_user.setdefault(revocation.user_id, deque()).append(revocation)
        old = time.monotonic() - KEPT
        while len(self._all) > MAX_KEPT or self._all[0].at < old:
            self._forget_oldest()
            if not self._all:
                break

    def _forget_oldest(self) -> None:
        oldest = self._all.popleft()
        of_user = self._of_user[oldest.user_id]
        of_user.popleft()
        if not of_user:
            del self._of_user[oldest.user_id]
        self.know_since(oldest.id, oldest.at)

    def know_since(self, id: int, at: float) -> None:
        """Notes that this worker may not know all revocations up to a position and a monotonic time."""
        self._after, self._since = max(self._after, id), max(self._since, at)

    def note_lost(self) -> None:
        """Notes that commands up to now may have been lost."""
        # The positions of the known revocations may be of an earlier epoch.
        known = [revocation._replace(id=0) for revocation in self._all]
        self._all.clear()
        self._of_user.clear()
        self._after, self._since = self._history_cache.announced.position, time.monotonic()
        for revocation in known:
            self.add(revocation)

    def since_time(self, user_id: str | None, began: float) -> list[Revocation] | None:
        """Returns the revocations of a user that this worker got after the monotonic time `began`.

        Returns None if the worker may have forgotten some of them, or may never have got them.
        """
        if began <= self._since or began < time.monotonic() - KEPT:
            return None
        return [each for each in self._of_user.get(user_id or "", ()) if each.at >= began]

    def since_position(self, user_id: str | None, asked: str) -> list[Revocation] | None:
        """Returns the revocations of a user that were published after the cursor `asked`.

        Returns None if the worker may have forgotten some of them, or may never have got them.
        """
        position, announced = cursor.parse(asked), self._history_cache.announced
        if position is None or not belongs(position, announced.epoch, announced.lineage):
            return None
        if position.id < self._after:
            return None
        return [each for each in self._of_user.get(user_id or "", ()) if each.id > position.id]
