"""A process that pays orders: counts in a row of the database, and publishes each count through the outbox.

A transaction adds 1 to the counter of a random channel and publishes the new count on the channel. So the
counters tell afterwards what each channel must have got: 1, 2, 3 and so on, in order, up to the counter. What
is rolled back, or was never committed because the process was killed, leaves no hole.
"""

from __future__ import annotations

import os
import random
import sys

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    select,
    update,
)
from sqlalchemy.orm import Session

from flask_sse_push import MessageAnnouncer
from flask_sse_push.outbox import Outbox

CHANNELS = [f"count:{letter}" for letter in "abcdefgh"]
#: Of so many transactions, one is rolled back.
ROLLED_BACK = 10

counters = Table(
    "counters",
    MetaData(),
    Column("channel", String(40), primary_key=True),
    Column("n", Integer, nullable=False),
)


def create(engine: Engine) -> None:
    """Creates the counters, all 0."""
    counters.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(counters.insert(), [{"channel": name, "n": 0} for name in CHANNELS])


def read(connection: Connection) -> dict[str, int]:
    """Returns the counters, by channel."""
    return {row.channel: row.n for row in connection.execute(select(counters))}


def pay(outbox: Outbox, channel: str, *, fails: bool = False) -> int:
    """Counts and publishes the count, unless the transaction fails. Returns the count."""
    with Session(outbox.engine) as session:
        row = counters.c.channel == channel
        session.execute(update(counters).where(row).values(n=counters.c.n + 1))
        count: int = session.execute(select(counters.c.n).where(row)).scalar_one()
        outbox.publish(session, {"channel": channel, "n": count}, "count", channel=channel)
        session.rollback() if fails else session.commit()
    return count


def main(transactions: int, seed: int) -> None:
    """Makes transactions, and prints a line after each."""
    chance = random.Random(seed)
    outbox = Outbox(
        create_engine(os.environ["DATABASE_URL"]),
        MessageAnnouncer.from_url(os.environ["SSE_PUSH_BROKER_URL"]),
    )
    for _ in range(transactions):
        pay(outbox, chance.choice(CHANNELS), fails=chance.randrange(ROLLED_BACK) == 0)
        print(flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
