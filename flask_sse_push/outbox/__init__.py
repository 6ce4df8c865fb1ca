"""Events of database transactions: nobody gets an event whose transaction is rolled back.

Offers:

- `transaction.Transaction` takes the events of one SQLAlchemy session. `after_commit` publishes these events
  when the session's transaction is committed.
- `Outbox` writes the events as rows in the same transaction. A `relay.Relay` publishes the rows.

Needs the extra `database` (SQLAlchemy). This package must not know how requests and streams are served.
"""

from __future__ import annotations

from ..errors import MissingExtra

try:
    import sqlalchemy.orm  # noqa: F401
except ImportError as error:
    raise MissingExtra("flask_sse_push.outbox", "database") from error

from .after_commit import after_commit
from .outbox import Outbox

__all__ = ["Outbox", "after_commit"]
