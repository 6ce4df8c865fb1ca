"""Questions to all workers: who is connected, how many, how they are. Each answers for its own streams.

Nothing is kept for it: a stream costs no more for being listed. A worker that was killed does not answer, so
it has no ghosts; until its lease ends, whoever asks waits for it in vain, for PATIENCE.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from ..announcer import MessageAnnouncer
from ..brokers.counts import Counts
from ..hub.commands import Effect
from ..hub.hub import Hub
from ..hub.stream import Stream

#: The command by which all are asked.
COMMAND = "ask"
#: Seconds that whoever asks waits for all workers.
PATIENCE = 2.0
#: Seconds between two looks for answers; doubled each time, up to the second.
FIRST_LOOK, LONGEST_LOOK = 0.005, 0.1
#: Questions that a worker answers at once; it leaves out more.
MAX_AT_ONCE = 8
#: Streams in one part of an answer, after which others get a turn.
PART = 200
#: Streams that are listed at most, of each worker.
MAX_LISTED = 50_000

Reply = dict[str, Any]


class WorkerQueries:
    """Asks all workers, and answers for this one.

    :param name: this worker's present name in the ledger.
    """

    def __init__(
        self, hub: Hub, counts: Counts, announcer: MessageAnnouncer, name: Callable[[], str]
    ) -> None:
        self._hub = hub
        self._counts = counts
        self._announcer = announcer
        self._name = name
        self._id = secrets.token_hex(6)
        self._busy = threading.Semaphore(MAX_AT_ONCE)
        hub.commands.on(COMMAND, self._asked)

    # -- asking -------------------------------------------------------------------------------------------

    def connections(self, channel: str | None = None, user_id: str | None = None) -> list[Reply]:
        """All streams that meet what is given, in no particular order. Blocks until all workers have
        answered, at most PATIENCE seconds. Raises BrokerUnavailable."""
        parts = self._ask("connections", channel=channel, user_id=user_id)
        return [stream for part in parts for stream in part.get("streams", ())]

    def count(self, channel: str | None = None) -> int:
        """How many streams have the channel, or are open at all; blocks as `connections` does."""
        return sum(part.get("count", 0) for part in self._ask("count", channel=channel, user_id=None))

    def stats(self) -> list[Reply]:
        """Each worker's figures; blocks as `connections` does."""
        return [part["stats"] for part in self._ask("stats", channel=None, user_id=None) if "stats" in part]

    def _ask(self, what: str, *, channel: str | None, user_id: str | None) -> list[Reply]:
        """The parts of all answers. This worker's own come at once, the others' by way of the ledger."""
        mine, missing = self._name(), set(self._counts.workers())
        missing.discard(mine)
        ticket = secrets.token_urlsafe(12)
        wanted = {"channel": channel, "user_id": user_id}
        if missing:
            self._announcer.command(COMMAND, ticket=ticket, what=what, asker=self._id, **wanted)
        own = self._hub.streams(**wanted)
        parts = list(self._parts(what, own)) if len(self._hub) else []
        return parts + self._gather(ticket, missing)

    def _gather(self, ticket: str, missing: set[str]) -> list[Reply]:
        parts: list[Reply] = []
        deadline, pause = time.monotonic() + PATIENCE, FIRST_LOOK
        while missing and time.monotonic() < deadline:
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_LOOK)
            fresh = [json.loads(part) for part in self._counts.answers(ticket, len(parts))]
            missing -= {part["last_of"] for part in fresh if "last_of" in part}
            parts += fresh
        return parts

    # -- answering ----------------------------------------------------------------------------------------

    def _asked(self, arguments: Mapping[str, Any]) -> list[Effect]:
        """The handler of the command: notes which streams are meant, and lets a thread do the work."""
        if arguments["asker"] == self._id:
            return []
        streams = self._hub.disconnector.matching(channel=arguments["channel"], user_id=arguments["user_id"])
        body = partial(self._answer, str(arguments["ticket"]), arguments["what"], streams)
        return [threading.Thread(target=body, name="flask-sse-push-answer", daemon=True).start]

    def _answer(self, ticket: str, what: str, streams: Sequence[Stream]) -> None:
        if not self._busy.acquire(blocking=False):
            return
        try:
            for part in self._parts(what, streams):
                self._counts.answer(ticket, [json.dumps(part).encode()])
                time.sleep(0)
        finally:
            self._busy.release()

    def _parts(self, what: str, streams: Sequence[Stream]) -> Iterator[Reply]:
        name = self._name()
        if what == "connections":
            for at in range(0, min(len(streams), MAX_LISTED), PART):
                yield {"streams": [described(stream, name) for stream in streams[at : at + PART]]}
            yield {"last_of": name}
        elif what == "stats":
            yield {"stats": {"worker": name, "pid": os.getpid(), **self._hub.stats()}, "last_of": name}
        else:
            yield {"count": len(streams), "last_of": name}


def described(stream: Stream, worker: str) -> Reply:
    """What is told of one stream."""
    events, size = stream.sent
    return {
        "connection": stream.connection,
        "user_id": stream.user_id,
        "channels": list(stream.channels),
        "address": stream.address,
        "user_agent": stream.agent,
        "since": stream.since,
        "events": events,
        "bytes": size,
        "buffered": stream.buffered,
        "worker": worker,
    }
