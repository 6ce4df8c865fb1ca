"""What the doctor says of one thing."""

from __future__ import annotations

from typing import NamedTuple

OK, WARNING, BROKEN = "ok", "warning", "broken"


class Finding(NamedTuple):
    """One thing that was looked at.

    `level` is ok, warning or broken; `name` says shortly what was looked at, `what` what was found. `why` it
    matters and `advice` are empty when all is well.
    """

    level: str
    name: str
    what: str
    why: str = ""
    advice: str = ""


def ok(name: str, what: str) -> Finding:
    """All is well."""
    return Finding(OK, name, what)


def warning(name: str, what: str, why: str, advice: str) -> Finding:
    """It works, but not as well as it could, or not always."""
    return Finding(WARNING, name, what, why, advice)


def graded(name: str, what: str, why: str, advice: str, *, is_broken: bool, is_poor: bool) -> Finding:
    """One thing that is broken, poor, or all right."""
    if is_broken:
        return broken(name, what, why, advice)
    return warning(name, what, why, advice) if is_poor else ok(name, what)


def broken(name: str, what: str, why: str, advice: str) -> Finding:
    """Events are late, lost or refused by this."""
    return Finding(BROKEN, name, what, why, advice)
