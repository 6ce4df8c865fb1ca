"""What `flask sse doctor` finds in this worker, as the admin page shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .visit import Visit


def examined(visit: Visit) -> dict[str, Any]:
    """Returns the findings. Blocks for some seconds."""
    return {"findings": []}
