"""The runs of all workers, as the admin page shows them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...hub.stream import Stream
from .visit import shown

if TYPE_CHECKING:
    from ..services import Services
    from .visit import Visit

#: The kind of query that asks every worker for its runs.
QUERY = "admin.runs"
#: At most how many runs a worker lists, and the page shows: those that began last.
MOST = 200


def listed(visit: Visit) -> dict[str, Any]:
    """Returns the runs of all workers, those that began last first."""
    answers = visit.services.streaming.worker_queries.ask(QUERY)
    found = sorted(answers.found, key=lambda run: float(run.get("since") or 0), reverse=True)
    return {"runs": found[:MOST], "missing": answers.missing}


def answer(services: Services, streams: Sequence[Stream], details: Mapping[str, Any]) -> Iterator[Any]:
    """Answers the query `QUERY`: yields the runs of this worker."""
    producers = sorted(services.streaming.runs.producers.values(), key=lambda each: -each.began)
    for producer in producers[:MOST]:
        yield {
            "key": shown(producer.key),
            "id": shown(producer.id),
            "channel": shown(producer.channel),
            "worker": producer.worker,
            "events": producer.events,
            "waiting": len(producer.output),
            "since": time.time() - (time.monotonic() - producer.began),
            "ended": producer.end[0] if producer.end else None,
        }
