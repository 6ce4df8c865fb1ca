"""What the doctor found out about one thing."""

from __future__ import annotations

from typing import NamedTuple

OK, WARNING, BROKEN = "ok", "warning", "broken"


class Finding(NamedTuple):
    """The result of one check.

    `level` is ok, warning or broken. `name` is a short name of the checked thing, `what` the fact that was
    found. `why` (it matters) and `advice` (what to do) are empty when the level is ok.
    """

    level: str
    name: str
    what: str
    why: str = ""
    advice: str = ""


def ok(name: str, what: str) -> Finding:
    """Returns a finding about something that needs no change."""
    return Finding(OK, name, what)


def warning(name: str, what: str, why: str, advice: str) -> Finding:
    """Returns a finding about something that works, but slowly or not always."""
    return Finding(WARNING, name, what, why, advice)


def graded(name: str, what: str, why: str, advice: str, *, is_broken: bool, is_poor: bool) -> Finding:
    """Returns a finding that is broken, a warning, or ok."""
    if is_broken:
        return broken(name, what, why, advice)
    return warning(name, what, why, advice) if is_poor else ok(name, what)


def broken(name: str, what: str, why: str, advice: str) -> Finding:
    """Returns a finding about something that delays, loses or refuses events."""
    return Finding(BROKEN, name, what, why, advice)
