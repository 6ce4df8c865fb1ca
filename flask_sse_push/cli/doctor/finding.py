"""The result of one check of `flask sse doctor`."""

from __future__ import annotations

from typing import NamedTuple

from ...config import Settings

OK, WARNING, BROKEN = "ok", "warning", "broken"


class Finding(NamedTuple):
    """The result of one check.

    `level` is ok, warning or broken. `name` is a short name of the checked part, and `what` is the fact that
    the check found. `why` says why this fact matters, and `advice` what to do; both are empty if the level is
    ok.
    """

    level: str
    name: str
    what: str
    why: str = ""
    advice: str = ""

    def naming(self, key: str) -> Finding:
        """Returns the finding with the key that the broker's URL was read from, which may be REDIS_URL."""
        return Finding(*(text.replace(Settings.broker_key, key) for text in self))


def ok(name: str, what: str) -> Finding:
    """Returns a finding about a part of the set-up that needs no change."""
    return Finding(OK, name, what)


def warning(name: str, what: str, why: str, advice: str) -> Finding:
    """Returns a finding about a part of the set-up that works, but slowly or not always."""
    return Finding(WARNING, name, what, why, advice)


def graded(name: str, what: str, why: str, advice: str, *, is_broken: bool, is_poor: bool) -> Finding:
    """Returns a finding whose level is broken if `is_broken`, else warning if `is_poor`, else ok."""
    if is_broken:
        return broken(name, what, why, advice)
    return warning(name, what, why, advice) if is_poor else ok(name, what)


def broken(name: str, what: str, why: str, advice: str) -> Finding:
    """Returns a finding about a part of the set-up that delays or loses events, or refuses streams."""
    return Finding(BROKEN, name, what, why, advice)
