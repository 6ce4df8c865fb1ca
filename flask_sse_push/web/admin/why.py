"""Why a user got nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .visit import Visit


def answered(visit: Visit) -> dict[str, Any]:
    """Returns the findings about a user and a channel."""
    return {
        "user": visit.text("user"),
        "channel": visit.text("channel"),
        "reason": None,
        "findings": [],
        "streams": [],
        "missing": [],
    }
