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
    type_coerce,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import FunctionElement
from sqlalchemy.types import NullType

from ..errors import MessageTooLarge
from ..protocol.channel import BROADCAST, checked_channels
from ..protocol.data import PACKED
from ..protocol.entry import Entry, Publication
from ..protocol.event import checked_exclude, checked_once, checked_ttl

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


def readable(events: Table) -> list[Any]:
    """Returns the columns for a query. SQLite may have a text in each of them, also where bytes belong."""
    return [type_coerce(column, NullType()).label(column.name) for column in events.c]


def to_event(row: Any, max_message: int) -> tuple[Publication, str]:
    """Returns the event of a row, and its idempotency id. Another program may have written the row.

    :param max_message: at most this many bytes of data an event has.
    :raises ValueError: if no event can have the values of the row.
    """
    try:
        channels: Any = (BROADCAST,) if row.channels == BROADCAST else checked_channels(row.channels.split())
        exclude = checked_exclude(json.loads(row.excluded) if row.excluded else None)
        body = row.body.encode() if isinstance(row.body, str) else bytes(memoryview(row.body))
    except (AttributeError, TypeError, RecursionError) as error:
        raise ValueError(f"a column has a wrong value: {error}") from error
    _check_body(body, channels, max_message)
    return Publication(body, channels, exclude, checked_ttl(row.ttl)), checked_once(row.event_key)


def _check_body(body: bytes, channels: tuple[str, ...], max_message: int) -> None:
    Entry("0", 1, 0, body, channels=channels).check_body()
    if len(body) > max_message:
        size = len(body.partition(b"data: ")[2].replace(b"\ndata: ", b"\n")) - len(b"\n\n")
        if size > max_message + len(PACKED):
            raise MessageTooLarge(size, max_message)


def _text() -> Any:
    return Text().with_variant(mysql.MEDIUMTEXT, *_MYSQL)
