"""The tables of an outbox: the events that wait for the relay, and which relay works.

Times are seconds since 1970 by the clock of the database, because the clocks of machines differ.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import FunctionElement

from ..protocol.channel import BROADCAST, checked_channels
from ..protocol.entry import Entry, Publication

#: The time of each database as seconds since 1970. The name is that of SQLAlchemy's dialect.
CLOCKS = {
    "sqlite": "(julianday('now') - 2440587.5) * 86400.0",
    "postgresql": "extract(epoch from clock_timestamp())::float8",
    "mysql": "timestampdiff(microsecond, '1970-01-01', utc_timestamp(6)) / 1e6",
    "mariadb": "timestampdiff(microsecond, '1970-01-01', utc_timestamp(6)) / 1e6",
}
_MYSQL = "mysql", "mariadb"


class clock(FunctionElement[float]):
    """The SQL expression for the database's time, in seconds since 1970."""

    type = Double()
    inherit_cache = True


for _dialect, _sql in CLOCKS.items():
    compiles(clock, _dialect)(lambda element, compiler, _sql=_sql, **options: _sql)


class Tables(NamedTuple):
    """The table with the events, and the table with a row for the relay that works."""

    events: Table
    relays: Table


def make_tables(metadata: MetaData, name: str) -> Tables:
    """Returns the two tables, and adds them to `metadata` if they are not there yet.

    :param name: the name of the table with the events. The other one has the same name and `_relay`.
    """
    relays = f"{name}_relay"
    if name in metadata.tables:
        return Tables(metadata.tables[name], metadata.tables[relays])
    events = Table(
        name,
        metadata,
        Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
        # The idempotency id. `id` does not do: a database that is restored may give an id out again.
        Column("event_key", String(40), nullable=False),
        Column("created", Double, nullable=False, default=clock()),
        Column("channels", _text(), nullable=False),  # separated by spaces
        Column("excluded", _text()),  # a JSON list of connection ids and user ids
        Column("ttl", Double),
        # Bytes, because an event may have the character NUL, which PostgreSQL has not in a text.
        Column("body", LargeBinary().with_variant(mysql.LONGBLOB, *_MYSQL), nullable=False),
        Column("problem", _text()),  # why the event can never be published
        sqlite_autoincrement=True,
    )
    return Tables(
        events,
        Table(
            relays,
            metadata,
            Column("name", String(64), primary_key=True),
            Column("owner", String(40), nullable=False),
            Column("until", Double, nullable=False),
        ),
    )


def to_row(event: Publication) -> dict[str, Any]:
    """Returns the columns that describe an event."""
    return {
        "channels": " ".join(event.channels),
        "excluded": json.dumps(event.exclude) if event.exclude else None,
        "ttl": event.ttl,
        "body": event.body,
    }


def to_event(row: Any) -> Publication:
    """Returns the event of a row.

    :raises ValueError: if another program has changed the row so that no event can have its values.
    """
    channels: Any = (BROADCAST,) if row.channels == BROADCAST else checked_channels(row.channels.split())
    exclude = json.loads(row.excluded) if row.excluded else ()
    Entry("0", 1, 0, bytes(row.body), channels=channels).check_body()
    return Publication(bytes(row.body), channels, tuple(map(str, exclude)), row.ttl)


def _text() -> Any:
    return Text().with_variant(mysql.MEDIUMTEXT, *_MYSQL)
