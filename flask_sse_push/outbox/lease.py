"""The lease: the right of one relay to publish the rows of an outbox. The other relays of this outbox wait.

A relay renews its lease while it works. The lease of a relay that was killed expires, and another relay takes
it. Two relays may both work for a moment, if one of them was suspended: then both publish the same rows in
the same order, each with its own idempotency id, and the broker stores each event once.
"""

from __future__ import annotations

import secrets
import time

from sqlalchemy import Connection, Table, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from .tables import clock

#: How long a lease lasts, in seconds, by the database's clock.
LEASE = 5.0
#: The name of the only row.
_NAME = "relay"


class Lease:
    """The lease of one relay."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._owner = secrets.token_urlsafe(12)
        self._until = 0.0  # the end of the lease on this process's monotonic clock; 0 without a lease

    def lasts(self) -> bool:
        """Returns whether this relay has the lease, and does not need to renew the lease yet."""
        return time.monotonic() < self._until - LEASE / 2

    def take(self, connection: Connection) -> bool:
        """Takes the lease if no other relay has it, or renews it. Returns whether this relay has the lease.

        Blocks for one or two short transactions.
        """
        if self.lasts():
            return True
        began, self._until = time.monotonic(), 0.0
        now, columns = clock(), self._table.c
        # Only a relay that may get the lease writes. Writing is dear, above all on SQLite.
        # If the database's clock was set back, a lease may seem to last for longer than any lease does.
        has_ended = or_(columns.until < now, columns.until > now + 2 * LEASE)
        found = connection.execute(select(columns.owner, has_ended)).first()
        if found is None:
            taken = self._insert(connection)
        elif found[0] != self._owner and not found[1]:
            taken = False
        else:
            is_free = or_(columns.owner == self._owner, has_ended)
            values = {"owner": self._owner, "until": now + LEASE}
            taken = connection.execute(update(self._table).where(is_free).values(values)).rowcount == 1
        connection.commit()
        if taken:
            self._until = began + LEASE
        return taken

    def _insert(self, connection: Connection) -> bool:
        now = clock()
        try:
            connection.execute(insert(self._table).values(name=_NAME, owner=self._owner, until=now + LEASE))
        except IntegrityError:  # another relay was quicker
            connection.rollback()
            return False
        return True

    def release(self, connection: Connection) -> None:
        """Gives the lease back, so that another relay can take it at once."""
        self._until = 0.0
        mine = self._table.c.owner == self._owner
        connection.execute(update(self._table).where(mine).values(until=0))
        connection.commit()
