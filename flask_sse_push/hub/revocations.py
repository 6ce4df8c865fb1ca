"""The revocations that a worker remembers: which rights of which users have ended.

A rule of the app takes time to answer. If a right is revoked meanwhile, the answer is out of date before it
is used. So a worker remembers each revocation, and compares it with every answer that it uses later: the
answer counts only if the rule was asked after the revocation. An answer that is older than all remembered
revocations does not count at all.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ..history.history_cache import HistoryCache
from ..protocol import cursor
from ..protocol.cursor import belongs
from .stream import Stream

#: How long a worker remembers a revocation, in seconds. The worker does not trust an answer of a
#: rule that was asked longer ago.
KEPT = 600.0
#: At most how many revocations a worker remembers; it forgets the oldest first.
MAX_KEPT = 10_000


class Revocation(NamedTuple):
    """The end of a right: a user, or a session, may no longer listen to a channel, or to any channel."""

    user_id: str | None  # None: of the users of one session
    session: str | None
    channel: str | None  # None: all channels
    reason: str  # `revoked` or `logout`
    id: int  # the position of the command; 0: before every position that is valid now
    at: float  # the monotonic time at which this worker got the command, or at which it was published

    @classmethod
    def of(cls, arguments: Mapping[str, Any], id: int, at: float) -> Revocation:
        """Returns the revocation in the arguments of a `revoke` command."""
        channel, reason = arguments.get("channel"), str(arguments.get("reason", "revoked"))
        return cls(arguments.get("user_id"), arguments.get("session"), channel, reason, id, at)

    @property
    def whose(self) -> Whose:
        """Whose rights end."""
        return self.user_id, self.session


#: First the id of a user, then the name of a session. One of the two is None.
Whose = tuple[str | None, str | None]


class Revocations:
    """The revocations of the last KEPT seconds that one worker knows. The caller holds the hub's lock.

    :param history_cache: the history cache of the shard that has the commands.
    """

    def __init__(self, history_cache: HistoryCache) -> None:
        self._history_cache = history_cache
        self._all: deque[Revocation] = deque()  # the oldest first
        self._by_whose: dict[Whose, deque[Revocation]] = {}
        # The worker remembers every revocation that was published after the position `_after`, and every one
        # that it got after the monotonic time `_since`.
        self._after, self._since = 0, 0.0

    def add(self, revocation: Revocation) -> None:
        """Remembers a revocation."""
        self._all.append(revocation)
        self._by_whose.setdefault(revocation.whose, deque()).append(revocation)
        old = time.monotonic() - KEPT
        while len(self._all) > MAX_KEPT or self._all[0].at < old:
            self._forget_oldest()
            if not self._all:
                break

    def _forget_oldest(self) -> None:
        oldest = self._all.popleft()
        same = self._by_whose[oldest.whose]
        same.popleft()
        if not same:
            del self._by_whose[oldest.whose]
        self.know_since(oldest.id, oldest.at)

    def know_since(self, id: int, at: float) -> None:
        """Notes that this worker may not know all revocations up to a position and a monotonic time."""
        self._after, self._since = max(self._after, id), max(self._since, at)

    def note_lost(self) -> None:
        """Notes that commands up to now may have been lost."""
        # The positions of the known revocations may be of an earlier epoch.
        known = [revocation._replace(id=0) for revocation in self._all]
        self._all.clear()
        self._by_whose.clear()
        self._after, self._since = self._history_cache.announced.position, time.monotonic()
        for revocation in known:
            self.add(revocation)

    def of_new(self, stream: Stream) -> list[Revocation] | None:
        """Returns the revocations of a new stream's rights since the app was asked about them.

        Returns None if the worker may have forgotten some of them, or may never have got them. The client
        then connects again. A client that reads a run in another format does not, so the view's decision
        stands.
        """
        began = stream.grant.began
        is_old = began <= self._since or began < time.monotonic() - KEPT
        if is_old and not stream.grant.vouched:
            return None
        return [each for each in self._of(*whose(stream)) if self.is_later(each, stream.grant)]

    def is_later(self, revocation: Revocation, grant: Any) -> bool:
        """Whether a revocation came after the app was asked about the rights that `grant` gives.

        If the rights come from a ticket, the app was asked when the ticket was made.
        """
        if revocation.at >= grant.began:
            return True
        position = None if grant.asked is None else self._position(grant.asked)
        return position is not None and revocation.id > position

    def _position(self, asked: str) -> int | None:
        """Returns the position of a cursor; None if the cursor is not valid in the broker's epoch."""
        position, announced = cursor.parse(asked), self._history_cache.announced
        if position is None or not belongs(position, announced.epoch, announced.lineage):
            return None
        return position.id

    def since_position(self, user_id: str | None, session: str | None, asked: str) -> list[Revocation] | None:
        """Returns the revocations of a user or a session that were published after the cursor `asked`.

        Returns None if the worker may have forgotten some of them, or may never have got them.
        """
        position = self._position(asked)
        if position is None or position < self._after:
            return None
        return [each for each in self._of(user_id, session) if each.id > position]

    def _of(self, user_id: str | None, session: str | None) -> Iterator[Revocation]:
        if user_id is not None:
            yield from self._by_whose.get((user_id, None), ())
        if session is not None:
            yield from self._by_whose.get((None, session), ())


def whose(stream: Stream) -> Whose:
    """Returns the user and the session of a stream."""
    return stream.user_id, None if stream.grant is None else stream.grant.session
