"""Whether a worker is well: from what is known of it to a status with reasons. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

HEALTHY, WARNING, CRITICAL = "HEALTHY", "WARNING", "CRITICAL"

#: Seconds that the broker may take to answer before it is worth a look.
SLOW = 0.25
#: Share of the places for streams that may be taken before it is worth a look.
FULL = 0.9


class Vitals(NamedTuple):
    """What is known of one worker."""

    broker_seconds: float | None  # what a call took; None: the broker did not answer
    broker_error: str  # why it did not
    streams: int
    places: int  # how many streams it may hold
    linked: bool  # whether it hears the broker; True without streams, when it need not
    probe: float | None  # seconds the last probe took from the worker to the broker and back
    stopping: bool
    broker_not_shared: bool  # memory:// with several workers


class Reason(NamedTuple):
    """One thing that is not as it should be."""

    status: str
    what: str
    why: str
    advice: str


class Health(NamedTuple):
    """The worst status of all reasons; HEALTHY without any."""

    status: str
    reasons: tuple[Reason, ...]

    def as_json(self) -> dict[str, Any]:
        """`{"status", "reasons": [{"status", "what", "why", "advice"}]}`."""
        return {"status": self.status, "reasons": [reason._asdict() for reason in self.reasons]}


def assess(vitals: Vitals) -> Health:
    """The worker's health. CRITICAL means: send new streams to another worker if there is one."""
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
                "nothing can be published, and new streams wait; open ones stay and lose nothing meanwhile",
                "look at Redis and at the network to it",
            )
        )
    elif not vitals.linked:
        reasons.append(
            Reason(
                CRITICAL,
                "this worker's link to the broker is cut, though the broker answers",
                "its streams get no events until it is back; then they get all they missed",
                "it is being renewed; if this stays, look at the limit of clients and at pub/sub rights",
            )
        )
    slowest = max(vitals.broker_seconds or 0.0, vitals.probe or 0.0)
    if slowest > SLOW:
        reasons.append(
            Reason(
                WARNING,
                f"the broker takes {slowest:.2f} seconds for an answer or a probe",
                "every event is late by about as much",
                "look at Redis' slow log, at the worker's CPU, and at the network between",
            )
        )
    if vitals.broker_not_shared:
        reasons.append(
            Reason(
                CRITICAL,
                "SSE_PUSH_BROKER_URL is memory:// and gunicorn runs several workers",
                "streams miss what another worker publishes",
                "set SSE_PUSH_BROKER_URL to a Redis URL, or run one worker",
            )
        )
    return reasons


def _worker(vitals: Vitals) -> list[Reason]:
    if vitals.stopping:
        return [
            Reason(CRITICAL, "this worker is stopping", "its streams are being sent away", "nothing to do")
        ]
    if vitals.streams >= vitals.places:
        status = CRITICAL
    elif vitals.streams >= FULL * vitals.places:
        status = WARNING
    else:
        return []
    return [
        Reason(
            status,
            f"{vitals.streams} of {vitals.places} places for streams are taken",
            "the next streams are refused with 503 once all are",
            "add workers or machines, or raise SSE_PUSH_MAX_STREAMS and the limit of open files",
        )
    ]
