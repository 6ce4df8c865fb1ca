"""The outboxes of the app, as the admin page shows them: how many events wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...monitoring.backlog import MOST, HasBacklog, of_current_app
from .visit import shown

if TYPE_CHECKING:
    from .visit import Visit


def listed(visit: Visit) -> dict[str, Any]:
    """Returns how many events wait in each outbox. Blocks for one query to the database for each."""
    return {"outboxes": [_shown(outbox) for outbox in of_current_app()], "counted_at_most": MOST}


def _shown(outbox: HasBacklog) -> dict[str, Any]:
    try:
        return {**outbox.backlog()._asdict(), "error": None}
    except Exception as error:  # each database driver has exceptions of its own
        nothing = {"name": outbox.name, "waiting": None, "age": None, "set_aside": None}
        return {**nothing, "error": f"the table cannot be read: {shown(getattr(error, 'orig', error))}"}
