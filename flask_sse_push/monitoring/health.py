"""Judges the health of one worker: turns numbers and flags into a status with reasons. Does no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..config import SHARE_BROKER

HEALTHY, WARNING, CRITICAL = "HEALTHY", "WARNING", "CRITICAL"

#: If a call to the broker or a probe takes more seconds than this, the health has a warning.
SLOW = 0.25
#: If a worker has this share of the streams that it can have at most, the health has a warning.
FULL = 0.9


class Vitals(NamedTuple):
    """The numbers and flags that decide about the health of one worker."""

    broker_seconds: float | None  # how long a call to the broker took; None if the broker did not answer
    broker_error: str  # why the broker did not answer; empty if it answered
    streams: int  # how many streams are open
    places: int  # how many streams the worker can have at most
    linked: bool  # False if the worker has streams but no link to the broker
    probe: float | None  # seconds from sending the last probe until its echo came; None before the first echo
    stopping: bool  # whether the worker is shutting down
    #: Which processes use memory://, though it cannot connect them; None if only one process does.
    not_shared: str | None
    ended_threads: Sequence[str] = ()  # names of the threads that have ended and do not run again yet


class Reason(NamedTuple):
    """One problem: what is wrong, why the problem matters, and what an operator can do."""

    status: str
    what: str
    why: str
    advice: str


class Health(NamedTuple):
    """The health of a worker: the reasons, and the worst status of them; HEALTHY if there are no reasons."""

    status: str
    reasons: tuple[Reason, ...]

    def as_json(self) -> dict[str, Any]:
        """Returns a dict for JSON: `{"status", "reasons": [{"status", "what", "why", "advice"}]}`."""
        return {"status": self.status, "reasons": [reason._asdict() for reason in self.reasons]}


def assess(vitals: Vitals) -> Health:
    """Returns the worker's health. If it is CRITICAL, a load balancer should use another worker if it can."""
    reasons = (*_broker(vitals), *_worker(vitals))
    for status in (CRITICAL, WARNING):
        if any(reason.status == status for reason in reasons):
            return Health(status, reasons)
    return Health(HEALTHY, reasons)


def _broker(vitals: Vitals) -> list[Reason]:
    reasons = []
    if vitals.broker_seconds is None:
        reasons.append(
            Reason(
                CRITICAL,
                f"the broker does not answer: {vitals.broker_error}",
                "nothing can be published and new streams have to wait; open streams stay and lose no events",
                "run `flask sse doctor` here: it says what is wrong with Redis or with the way to it",
            )
        )
    elif not vitals.linked:
        reasons.append(
            Reason(
                CRITICAL,
                "this worker's link to the broker is cut, though the broker answers",
                "its streams get no events until the link is back; then they get all events they missed",
                "the worker keeps renewing the link; if it fails, check Redis' maxclients and pub/sub rights",
            )
        )
    slowest = max(vitals.broker_seconds or 0.0, vitals.probe or 0.0)
    if slowest > SLOW:
        reasons.append(
            Reason(
                WARNING,
                f"the broker takes {slowest:.2f} seconds to answer a call or a probe",
                "every event arrives about that much later",
                "check Redis' slow log, the worker's CPU and the network between them",
            )
        )
    if vitals.not_shared:
        reasons.append(
            Reason(
                CRITICAL,
                f"SSE_PUSH_BROKER_URL is memory:// and {vitals.not_shared}",
                "streams miss the events that other processes publish",
                f"{SHARE_BROKER}; or run one worker",
            )
        )
    return reasons


def _worker(vitals: Vitals) -> list[Reason]:
    if vitals.stopping:
        why = "it closes its streams, and their clients connect to other workers"
        return [Reason(CRITICAL, "this worker is stopping", why, "nothing to do")]
    reasons = []
    if vitals.ended_threads:
        names = ", ".join(vitals.ended_threads)
        reasons.append(
            Reason(
                CRITICAL,
                f"threads of this worker have ended and do not run again yet: {names}",
                "streams wait for what they do: sending, reading from the broker, rechecks or counts",
                "nothing to do: the worker starts the threads again. The log says why each thread has ended",
            )
        )
    return reasons + _places(vitals)


def _places(vitals: Vitals) -> list[Reason]:
    if vitals.streams < FULL * vitals.places:
        return []
    return [
        Reason(
            CRITICAL if vitals.streams >= vitals.places else WARNING,
            f"{vitals.streams} of {vitals.places} places for streams are taken",
            "when all places are taken, new streams are refused with 503",
            "add workers or machines, or raise SSE_PUSH_MAX_STREAMS and the limit of open files",
        )
    ]
