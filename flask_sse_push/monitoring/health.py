"""Judges the health of one worker: from numbers and flags to a status with reasons. Does no I/O."""

from __future__ import annotations

from typing import Any, NamedTuple

HEALTHY, WARNING, CRITICAL = "HEALTHY", "WARNING", "CRITICAL"

#: Seconds that a call to the broker, or a probe, may take without a warning.
SLOW = 0.25
#: Share of the places for streams that may be taken without a warning.
FULL = 0.9


class Vitals(NamedTuple):
    """What the status of one worker depends on."""

    broker_seconds: float | None  # seconds that a call to the broker took; None: it did not answer
    broker_error: str  # why it did not answer
    streams: int
    places: int  # number of streams that the worker can hold
    linked: bool  # False: the worker has streams and no link to the broker
    probe: float | None  # seconds that the last probe took from the worker through the broker and back
    stopping: bool
    broker_not_shared: bool  # memory:// with several workers


class Reason(NamedTuple):
    """One thing that is wrong: what it is, why it matters, and what an operator can do."""

    status: str
    what: str
    why: str
    advice: str


class Health(NamedTuple):
    """The worst status of all reasons; HEALTHY if there are none."""

    status: str
    reasons: tuple[Reason, ...]

    def as_json(self) -> dict[str, Any]:
        """Returns `{"status", "reasons": [{"status", "what", "why", "advice"}]}`."""
        return {"status": self.status, "reasons": [reason._asdict() for reason in self.reasons]}


def assess(vitals: Vitals) -> Health:
    """Returns the worker's health. CRITICAL means: send new streams to another worker if there is one."""
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
                "check Redis and the network to it",
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
                f"the broker takes {slowest:.2f} seconds for an answer or a probe",
                "every event arrives about that much later",
                "check Redis' slow log, the worker's CPU and the network between them",
            )
        )
    if vitals.broker_not_shared:
        reasons.append(
            Reason(
                CRITICAL,
                "SSE_PUSH_BROKER_URL is memory:// and gunicorn runs several workers",
                "streams miss the events that other workers publish",
                "set SSE_PUSH_BROKER_URL to a Redis URL, or run one worker",
            )
        )
    return reasons


def _worker(vitals: Vitals) -> list[Reason]:
    if vitals.stopping:
        why = "it closes its streams, and their clients connect to other workers"
        return [Reason(CRITICAL, "this worker is stopping", why, "nothing to do")]
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
