"""What the checks of `flask sse doctor` find in this process, as the admin page shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..operations import assess
from .checks import BROKEN, WARNING
from .visit import shown

if TYPE_CHECKING:
    from .visit import Visit

#: At most how many characters of each text of a finding are shown.
MAX_TEXT = 1000


def examined(visit: Visit) -> dict[str, Any]:
    """Returns the findings, and what `/health` says about this worker. Blocks for some seconds at most."""
    found = [*_health(visit), *visit.examine()]
    return {"findings": [{key: shown(text, MAX_TEXT) for key, text in each.items()} for each in found]}


def _health(visit: Visit) -> list[dict[str, str]]:
    reasons = assess(visit.services)[0].reasons
    levels = {"CRITICAL": BROKEN, "WARNING": WARNING}
    return [
        {
            "level": levels[each.status],
            "name": "worker",
            "what": each.what,
            "why": each.why,
            "advice": each.advice,
        }
        for each in reasons
    ]
