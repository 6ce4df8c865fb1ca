"""Group commit: publishers that come while one call to the broker is under way share the next call."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ..errors import BrokerUnavailable
from ..protocol.cursor import Cursor
from ..protocol.entry import Publication
from . import forks, native_threads

#: At most this many events, and about this many bytes, in one shared call: while the broker stores them, it
#: does nothing else. The events of one publisher always go together.
MOST_EVENTS, MOST_BYTES = 200, 500_000
#: At most this many publishers wait in one process. Further publishers get BrokerUnavailable at once.
MOST_WAITING = 10_000
#: After this share of its time, a publisher no longer waits for a call to begin: the call needs the rest.
LAST_START = 0.8


class Request:
    """Events that are stored in one atomic step, and the outcome.

    :param once: the idempotency id of the events; None if they have none.
    """

    __slots__ = ("once", "outcome", "publications", "size")

    def __init__(self, publications: Sequence[Publication], once: str | None) -> None:
        self.publications = publications
        self.once = once
        self.size = sum([len(each.body) for each in publications])
        #: The cursors of the events, or the error that their publisher gets; None until either is known.
        self.outcome: Any = None

    def result(self) -> list[Cursor]:
        """Returns the cursors of the events.

        :raises InvalidEvent, BrokerUnavailable: if the broker has refused the events, or cannot be reached.
        """
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome  # type: ignore[no-any-return]


class Commit(Protocol):
    """A call to the broker that stores several requests."""

    def run(self, seconds: float) -> None:
        """Sets the outcome of every request. If `run` fails, it may be called again: nothing is stored twice.

        :param seconds: how long the call may take.
        :raises BrokerUnavailable: if a request still has no outcome when the time is over.
        """


class _Publisher:
    """A greenlet or thread that publishes."""

    __slots__ = ("deadline", "group", "is_gone", "leads", "requests", "woken")

    def __init__(self, requests: Sequence[Request], deadline: float) -> None:
        self.requests = requests
        self.deadline = deadline  # monotonic time
        self.leads = False  # whether this publisher makes the next call
        self.is_gone = False  # whether it has stopped waiting
        self.group: _Group | None = None  # the group that it leads; perhaps another has left it to this one
        self.woken: Any = None  # a lock that it waits for


class _Group:
    """Publishers whose requests one call stores."""

    __slots__ = ("commit", "publishers")

    def __init__(self, publishers: Sequence[_Publisher]) -> None:
        self.publishers = publishers
        self.commit: Commit | None = None  # made by the first publisher that leads the group


class GroupCommit:
    """Publishes for many greenlets or threads at once, with few calls to the broker.

    A publisher that finds no call under way makes a call at once: it leads. Publishers that come meanwhile
    wait. When the call ends, the first of them leads, and makes one call for all of them. If something ends
    the publisher that leads, such as a `gevent.Timeout`, another publisher of its group repeats the call.

    :param prepare: returns the call that stores some requests. Sends nothing yet.
    :param timeout: how long `publish` blocks at most, in seconds.
    """

    def __init__(self, prepare: Callable[[Sequence[Request]], Commit], timeout: float) -> None:
        self._prepare = prepare
        self._timeout = timeout
        self.after_fork()
        forks.watch(self)

    def after_fork(self) -> None:
        """See `forks.Part.after_fork`. The publishers that wait stay in the parent."""
        self._mutex = native_threads.lock()  # guards the next two fields
        self._waiting: deque[_Publisher] = deque()
        self._is_busy = False
        #: The threads or greenlets that publish. If one of them publishes again, it runs a signal's handler.
        self._inside: set[int] = set()

    @forks.stays_in_parent
    def publish(self, requests: Sequence[Request]) -> None:
        """Stores requests, and sets the outcome of each. Blocks for at most about `timeout` seconds.

        The broker stores the events of one publisher in the order in which it publishes them.

        :raises BrokerUnavailable: only in the handler of a signal that has interrupted a publish. Other
            callers find this error in the outcomes.
        """
        thread = threading.get_ident()
        if thread in self._inside:  # what the handler has interrupted may hold the mutex, and cannot go on
            self._prepare(requests).run(self._timeout)
            return
        self._inside.add(thread)
        try:
            self._publish(_Publisher(requests, time.monotonic() + self._timeout))
        finally:
            self._inside.discard(thread)

    def _publish(self, mine: _Publisher) -> None:
        try:
            self._enter(mine)
            if not mine.leads:
                self._wait(mine)
            if mine.leads:
                self._lead(mine)
        except BrokerUnavailable as error:
            self._leave(mine, error)
            _refuse(mine, error)
        except BaseException as error:
            self._leave(mine, error)
            raise
        finally:
            mine.group = None  # a circle of references would be left to the garbage collector

    def _enter(self, mine: _Publisher) -> None:
        """Puts a publisher in the queue. It leads if no call is under way."""
        with self._mutex:
            if len(self._waiting) >= MOST_WAITING:
                raise BrokerUnavailable(f"{MOST_WAITING} publishers of this process wait already")
            if self._is_busy:
                mine.woken = threading.Lock()
                mine.woken.acquire()
            mine.leads, self._is_busy = not self._is_busy, True
            self._waiting.append(mine)

    def _wait(self, mine: _Publisher) -> None:
        """Waits until the requests of a publisher have outcomes, or the publisher leads.

        :raises BrokerUnavailable: if no call begins, or the call does not end, in time.
        """
        latest_start = mine.deadline - (1 - LAST_START) * self._timeout
        if mine.woken.acquire(timeout=max(0.0, latest_start - time.monotonic())):
            return
        with self._mutex:
            is_queued = mine in self._waiting and not mine.leads
        if is_queued or not mine.woken.acquire(timeout=max(0.0, mine.deadline - time.monotonic())):
            raise BrokerUnavailable("the broker is too slow for all events that this process publishes")

    def _lead(self, mine: _Publisher) -> None:
        """Makes one call for the publishers that wait, of which `mine` is the first. Then lets the next lead.

        Goes on with the call of another publisher if that publisher has left it to `mine`.
        """
        group = mine.group or self._next_group(mine)
        if group.commit is None:
            group.commit = self._prepare(
                [each for publisher in group.publishers for each in publisher.requests]
            )
        group.commit.run(max(0.0, mine.deadline - time.monotonic()))
        self._end(group, mine)
        if len(group.publishers) > 1:
            # The others publish their next events, if they have any, before this publisher does.
            time.sleep(0)

    def _next_group(self, mine: _Publisher) -> _Group:
        """Takes the first publishers that wait out of the queue, as many as one call may serve."""
        publishers: list[_Publisher] = []
        events, size = 0, 0
        with self._mutex:
            while self._waiting:
                for each in self._waiting[0].requests:
                    events, size = events + len(each.publications), size + each.size
                if publishers and (events > MOST_EVENTS or size > MOST_BYTES):
                    break
                publishers.append(self._waiting.popleft())
            mine.group = _Group(publishers)
        return mine.group

    def _end(self, group: _Group, mine: _Publisher) -> None:
        """Wakes the others of a group: all have outcomes now. The first publisher that waits leads next."""
        with self._mutex:
            mine.leads = False
            for each in group.publishers:
                if each is not mine and not each.is_gone:
                    each.woken.release()
            self._pass_on()

    def _pass_on(self) -> None:
        """Lets the first publisher that waits lead, if any waits. The caller holds the mutex."""
        self._is_busy = bool(self._waiting)
        if self._is_busy:
            self._waiting[0].leads = True
            self._waiting[0].woken.release()

    def _leave(self, mine: _Publisher, error: BaseException) -> None:
        """Lets the other publishers go on after an error has ended a publisher's wait or its call."""
        with self._mutex:
            mine.is_gone = True
            if mine in self._waiting:
                self._waiting.remove(mine)
            leads, mine.leads = mine.leads, False
            if not leads:
                return
            group = mine.group
            if group is None:
                self._pass_on()
                return
            heir = self._heir(group, mine, error)
            if heir is not None:
                heir.group, heir.leads = group, True
                heir.woken.release()
                return
        for each in group.publishers:
            if each is not mine:
                _refuse(each, error)
        self._end(group, mine)

    def _heir(self, group: _Group, mine: _Publisher, error: BaseException) -> _Publisher | None:
        """Returns the publisher that repeats the call of a group; None if a repetition would be of no use.

        Only a publisher whose time is not over repeats the call.
        """
        now = time.monotonic()
        latest_start = mine.deadline - (1 - LAST_START) * self._timeout
        if isinstance(error, Exception) and now < latest_start:  # the broker has refused the call
            return None
        others = [each for each in group.publishers if not each.is_gone]
        heir = max(others, key=lambda each: each.deadline, default=None)
        return heir if heir and heir.deadline - now > (1 - LAST_START) * self._timeout else None


def _refuse(publisher: _Publisher, error: BaseException) -> None:
    """Gives the requests of a publisher that have no outcome an error. Each request gets its own error."""
    for request in publisher.requests:
        if request.outcome is None:
            ended = f"the greenlet or thread that made the call has ended: {error!r}"
            request.outcome = BrokerUnavailable(str(error) if isinstance(error, BrokerUnavailable) else ended)
            request.outcome.__cause__ = error.__cause__ or error
