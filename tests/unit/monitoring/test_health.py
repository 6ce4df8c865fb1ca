"""The health of a worker, from its vitals."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from flask_sse_push.hub.hub import FIRST_LINK, Hub
from flask_sse_push.monitoring.health import CRITICAL, HEALTHY, WARNING, Vitals, assess

WELL = Vitals(
    broker_seconds=0.001,
    broker_error="",
    streams=10,
    places=100,
    linked=True,
    probe=0.002,
    stopping=False,
    not_shared=None,
)


def test_a_healthy_worker_has_no_reasons() -> None:
    assert assess(WELL).as_json() == {"status": HEALTHY, "reasons": []}


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        ({"broker_seconds": None, "broker_error": "refused"}, CRITICAL, "does not answer: refused"),
        ({"linked": False}, CRITICAL, "link to the broker is cut"),
        ({"broker_seconds": 0.3}, WARNING, "takes 0.30 seconds"),
        ({"probe": 0.5}, WARNING, "takes 0.50 seconds"),
        ({"not_shared": "gunicorn runs 2 workers"}, CRITICAL, "memory://"),
        ({"stopping": True}, CRITICAL, "stopping"),
        ({"ended_threads": ["fetcher", "hub"]}, CRITICAL, "not run again yet: fetcher, hub"),
        ({"streams": 89}, HEALTHY, ""),
        ({"streams": 90}, WARNING, "90 of 100 places"),
        ({"streams": 100}, CRITICAL, "100 of 100 places"),
    ],
)
def test_each_problem_has_a_reason(change: dict[str, Any], status: str, says: str) -> None:
    health = assess(WELL._replace(**change))
    assert health.status == status
    assert [says in reason.what and bool(reason.why and reason.advice) for reason in health.reasons] == (
        [True] if says else []
    )


def test_the_status_is_the_worst_reasons_and_all_reasons_are_listed() -> None:
    health = assess(WELL._replace(probe=1.0, not_shared="gunicorn runs 2 workers"))
    assert health.status == CRITICAL
    assert [reason.status for reason in health.reasons] == [WARNING, CRITICAL]


@pytest.mark.parametrize(
    ("age", "silent", "wanted"),
    [
        (0.0, None, False),
        (FIRST_LINK, None, True),
        (1.0, 0.5, True),
        (0.5, 1.0, False),
        (FIRST_LINK, 60.0, True),
    ],
    ids=["just begun", "never made", "lost", "just begun after a pause", "not made again"],
)
def test_a_first_link_that_is_still_being_made_does_not_count_as_down(
    age: float, silent: float | None, wanted: bool
) -> None:
    heard_at = 0.0 if silent is None else time.monotonic() - silent
    streams: Any = [SimpleNamespace(opened_at=time.time() - age)]
    assert Hub._wants_link(streams, heard_at) is wanted
    assert not Hub._wants_link([], heard_at)
