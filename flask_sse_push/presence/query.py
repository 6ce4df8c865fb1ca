"""Queries: asks all workers for a list of their streams, the number of their streams, or their figures.

The admin page adds further kinds of queries. A query is a command to all workers. The command contains a
random key. Each worker stores its answer in the broker under this key, and the asking worker reads the
answers there. Between queries nothing is stored. A worker that was killed does not answer. Until the worker's
counts in the broker expire, each query waits TIMEOUT seconds for its answer.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

from ..brokers import native_threads
from ..brokers.announcer import MessageAnnouncer
from ..brokers.counts import Counts
from ..brokers.forks import stays_in_parent
from ..hub import background
from ..hub.commands import Effect
from ..hub.hub import Hub
from ..hub.stream import Stream

logger = logging.getLogger(__name__)

#: Name of the command that sends a query to all workers.
COMMAND = "ask"
#: How long a query waits for the answers of all workers, in seconds.
TIMEOUT = 2.0
#: Seconds between two reads of the answers from the broker. The first number is the pause before the first
#: read. The pause doubles after each read, up to the second number.
FIRST_PAUSE, LONGEST_PAUSE = 0.005, 0.1
#: At most how many queries a worker answers at the same time. The worker ignores further queries.
MAX_AT_ONCE = 8
#: How many streams stand in one part of an answer. After each part the thread lets other threads run.
STREAMS_IN_PART = 200
#: At most how many streams a worker lists in its answer.
MAX_LISTED = 50_000

#: One part of a worker's answer; a dict that can be written as JSON.
Part = dict[str, Any]
#: Answers a query of a further kind: takes the matching streams and the details of the query, and yields
#: what stands in the parts of the answer under the key `found`.
Answer = Callable[[Sequence[Stream], Mapping[str, Any]], Iterable[dict[str, Any]]]


class Answers(NamedTuple):
    """The answers of all workers to a query of a further kind, such as those of the admin page."""

    found: list[dict[str, Any]]  # what the `Answer` of each worker has yielded
    missing: list[str]  # the names of the workers that did not answer in time


class WorkerQueries:
    """Sends queries to all workers, and answers the queries of other workers.

    :param name: a function that returns this worker's current name in the broker's counts.
    :param find_answer: returns the function that answers a query of a further kind; None for an unknown kind.
    """

    def __init__(
        self,
        hub: Hub,
        counts: Counts,
        announcer: MessageAnnouncer,
        name: Callable[[], str],
        find_answer: Callable[[str], Answer | None] = lambda what: None,
    ) -> None:
        self._hub = hub
        self._counts = counts
        self._announcer = announcer
        self._name = name
        self._find_answer = find_answer
        self._id = secrets.token_hex(6)
        self._answering = threading.Semaphore(MAX_AT_ONCE)
        hub.commands.on(COMMAND, self._handle, self._handle_late)

    # -- sending queries ----------------------------------------------------------------------------------

    def connections(self, channel: str | None = None, user_id: str | None = None) -> list[dict[str, Any]]:
        """Returns the open streams of all workers, in no particular order.

        Blocks until all workers have answered, for at most TIMEOUT seconds.

        :param channel: returns only the streams that listen to this channel.
        :param user_id: returns only the streams of this user.
        :raises BrokerUnavailable: if the broker does not answer.
        """
        parts = self._ask("connections", channel=channel, user_id=user_id)
        return [stream for part in parts for stream in part.get("streams", ())]

    def count(self, channel: str | None = None) -> int:
        """Returns how many streams are open on all workers; with `channel`, how many listen to this channel.

        Blocks and raises exceptions like `connections`.
        """
        return sum(part.get("count", 0) for part in self._ask("count", channel=channel))

    def stats(self) -> list[dict[str, Any]]:
        """Returns a dict of figures for each worker. Blocks and raises exceptions like `connections`."""
        return [part["stats"] for part in self._ask("stats") if "stats" in part]

    def ask(
        self,
        what: str,
        details: Mapping[str, Any] = MappingProxyType({}),
        *,
        channel: str | None = None,
        user_id: str | None = None,
    ) -> Answers:
        """Sends a query of a further kind to all workers. Blocks and raises exceptions like `connections`.

        This worker always answers. Of the other workers, the query goes to those with streams or runs.

        :param what: the kind of query, which `find_answer` knows.
        :param details: what else the answer needs to know, as JSON values.
        """
        missing: list[str] = []
        wanted = {"channel": channel, "user_id": user_id}
        parts = self._ask(what, details=details, missing=missing, **wanted)
        return Answers([part["found"] for part in parts if "found" in part], missing)

    @stays_in_parent
    def _ask(
        self,
        what: str,
        *,
        channel: str | None = None,
        user_id: str | None = None,
        details: Mapping[str, Any] | None = None,
        missing: list[str] | None = None,
    ) -> list[Part]:
        """Sends a query and returns the parts of all answers, the answer of this worker included.

        :param what: the kind of query: `connections`, `count`, `stats` or a further kind.
        :param details: the details of a query of a further kind; None for the other kinds.
        :param missing: gets the names of the workers that did not answer in time.
        """
        wanted = {"channel": channel, "user_id": user_id}
        return native_threads.run(partial(self._ask_all, what, wanted, details, missing))

    def _ask_all(
        self,
        what: str,
        wanted: Mapping[str, str | None],
        details: Mapping[str, Any] | None,
        silent: list[str] | None,
    ) -> list[Part]:
        missing = set(self._counts.workers()) - {self._name()}
        ticket = secrets.token_urlsafe(12)
        if missing:
            more = {} if details is None else {"details": dict(details)}
            self._announcer.command(COMMAND, ticket=ticket, what=what, asker=self._id, **wanted, **more)
        asked = len(self._hub) or details is not None
        own = list(self._parts(what, self._hub.streams(**wanted), details or {})) if asked else []
        parts = own + self._collect(ticket, missing)
        if silent is not None:
            silent += sorted(missing)
        return parts

    def _collect(self, ticket: str, missing: set[str]) -> list[Part]:
        """Waits for the answers to a query. Removes the workers that answer from `missing`."""
        parts: dict[str, Part] = {}  # by id: if the broker's reply is lost, a worker stores its part again
        read = 0
        deadline, pause = time.monotonic() + TIMEOUT, FIRST_PAUSE
        while missing and time.monotonic() < deadline:
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
            new = self._counts.replies(ticket, read)
            for at, part in enumerate(map(_parsed, new), read):
                missing.discard(part.get("last_of", ""))
                parts.setdefault(part.get("id", str(at)), part)
            read += len(new)
        return list(parts.values())

    # -- answering queries --------------------------------------------------------------------------------

    def _handle(self, arguments: Mapping[str, Any]) -> list[Effect]:
        """Handles a query of another worker: lists the matching streams now, and answers in a new thread."""
        if arguments["asker"] == self._id:
            return []
        streams = self._hub.disconnector.find(channel=arguments["channel"], user_id=arguments["user_id"])
        what, details = arguments["what"], arguments.get("details") or {}
        body = partial(self._answer, str(arguments["ticket"]), what, streams, details)
        return [partial(background.start, "answer", body, repeat=False)]

    def _handle_late(self, arguments: Mapping[str, Any], published_at: float) -> list[Effect]:
        """Handles a query from before this worker subscribed to commands, if the asking worker still waits.

        A new worker may be in the broker's list of workers shortly before it subscribes.
        """
        return self._handle(arguments) if time.monotonic() < published_at + TIMEOUT else []

    def _answer(self, ticket: str, what: str, streams: Sequence[Stream], details: Mapping[str, Any]) -> None:
        if not self._answering.acquire(blocking=False):
            return
        try:
            for number, part in enumerate(self._parts(what, streams, details)):
                stored = {**part, "id": f"{self._id}-{number}"}
                self._counts.add_replies(ticket, [json.dumps(stored).encode()])
                time.sleep(0)
        finally:
            self._answering.release()

    def _parts(self, what: str, streams: Sequence[Stream], details: Mapping[str, Any]) -> Iterator[Part]:
        """Yields this worker's answer in parts. Only the last has the key `last_of`: the worker's name."""
        name = self._name()
        if what == "connections":
            for at in range(0, min(len(streams), MAX_LISTED), STREAMS_IN_PART):
                yield {"streams": [listed(stream, name) for stream in streams[at : at + STREAMS_IN_PART]]}
            yield {"last_of": name}
        elif what == "stats":
            yield {"stats": {"worker": name, "pid": os.getpid(), **self._hub.stats()}, "last_of": name}
        elif what == "count":
            yield {"count": len(streams), "last_of": name}
        else:
            answer = self._find_answer(what)
            for found in answer(streams, details) if answer is not None else ():
                yield {"found": found}
            yield {"last_of": name}


def _parsed(part: bytes) -> Part:
    """Reads a part of an answer. Returns an empty part if no worker has written it."""
    try:
        found = json.loads(part)
    except (ValueError, RecursionError):
        found = None
    kinds = {"streams": list, "count": int, "stats": dict, "found": dict, "last_of": str, "id": str}
    if isinstance(found, dict) and all(isinstance(found[key], kinds.get(key, object)) for key in found):
        return found
    logger.error("ignoring a part of an answer that no worker has written")
    return {}


def listed(stream: Stream, worker: str) -> dict[str, Any]:
    """Returns a dict about one stream, with the keys that `SSEBlueprint.connections` describes."""
    events, size = stream.sent
    return {
        "connection": stream.connection,
        "user_id": stream.user_id,
        "channels": list(stream.channels),
        "address": stream.address,
        "user_agent": stream.agent,
        "since": stream.opened_at,
        "events": events,
        "bytes": size,
        "buffered": stream.buffered,
        "worker": worker,
    }
