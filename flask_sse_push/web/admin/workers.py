"""The workers, as the admin page shows them: their links, their streams, their memory."""

from __future__ import annotations

import os
import resource
import socket
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...hub.stream import Stream
from ...transports import wsgi_server

if TYPE_CHECKING:
    from ..services import Services
    from .visit import Visit

#: The kind of query that asks every worker for its state.
QUERY = "admin.worker"


def listed(visit: Visit) -> dict[str, Any]:
    """Returns the state of every worker that has streams or runs, and of this worker.

    All other workers are idle: they have no link to the broker, so they get no query. `idle` says how many
    idle workers the servers of the listed workers have.
    """
    services = visit.services
    answers = services.streaming.worker_queries.ask(QUERY)
    own, idle = services.streaming.worker_counts.name, idle_workers(answers.found, len(answers.missing))
    found = [{**state, "own": state.get("worker") == own} for state in answers.found]
    found.sort(key=lambda each: str(each.get("worker")))
    return {"workers": found, "missing": answers.missing, "idle": idle}


def idle_workers(found: Iterable[Mapping[str, Any]], missing: int) -> int:
    """Returns how many workers the servers have beside those that answered, and the `missing` ones."""
    sizes: dict[tuple[str, str], int] = {}
    answered: Counter[tuple[str, str]] = Counter()
    for each in found:
        server, size = (str(each.get("host")), str(each.get("server"))), each.get("server_workers")
        answered[server] += 1
        sizes[server] = size if isinstance(size, int) else 0
    return max(0, sum(max(0, size - answered[server]) for server, size in sizes.items()) - missing)


def answer(services: Services, streams: Sequence[Stream], details: Mapping[str, Any]) -> Iterator[Any]:
    """Answers the query `QUERY`: yields the state of this worker, and how many workers its server has."""
    yield {**state(services), "server": os.getppid(), "server_workers": wsgi_server.worker_count()}


def state(services: Services) -> dict[str, Any]:
    """Returns the state of this worker. Takes longer with more streams: about a microsecond for each."""
    streaming = services.streaming
    gauges = services.gauges()
    return {
        "worker": streaming.worker_counts.name,
        "pid": os.getpid(),
        "host": host(),
        **streaming.hub.stats(),
        "behind": len(streaming.hub.behind),
        "buffered": gauges.buffered,
        "connected": not gauges.link_down,
        "probe": gauges.probe,
        "recheck_lag": round(gauges.recheck_lag, 3),
        "memory": memory(),
        "max_streams": streaming.max_streams,
        "runs": len(streaming.runs.producers),
        "stopping": wsgi_server.is_stopping(),
    }


@cache
def host() -> str:
    """Returns the name of this machine, at most 100 characters of it."""
    return socket.gethostname()[:100]


def memory() -> int:
    """Returns how many bytes of memory this process occupies; outside Linux, the most that it ever did."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return pages * resource.getpagesize()
