"""How a commit wakes the relay: by NOTIFY of PostgreSQL, or by a message over the broker.

The relay also looks into the table by itself from time to time. So a lost message only delays events.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Any, Protocol

from sqlalchemy import Engine, Table, text
from sqlalchemy.orm import Session

from ..brokers import native_threads
from ..brokers.announcer import MessageAnnouncer
from ..hub import background

#: How long a relay sleeps at most, in seconds: if commits wake it, and if they cannot.
PATIENCE, POLL = 1.0, 0.1


class Waiter(Protocol):
    """Waits until a commit wakes the relay."""

    def wait(self) -> None:
        """Returns soon after a commit. Blocks at most `PATIENCE` seconds."""

    def close(self) -> None:
        """Closes the connection."""


def make_waiter(engine: Engine, announcer: MessageAnnouncer, name: str) -> Waiter:
    """Returns the best waiter for a database. Opens its connection.

    :param name: the name of the outbox's table.
    """
    if engine.dialect.name != "postgresql":
        return _BrokerWaiter(announcer, name)
    return _NotifyWaiter(engine, name) if engine.dialect.driver == "psycopg" else _Sleeper()


class _NotifyWaiter:
    """Waits for NOTIFY, on a connection of its own. Only psycopg can wait without blocking gevent."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        self._connection.execute(text(f'LISTEN "{name}"'))
        self._driver: Any = self._connection.connection.driver_connection
        self._driver_error: Any = engine.dialect.loaded_dbapi.Error

    def wait(self) -> None:
        """Returns soon after a commit.

        :raises ConnectionError: if the connection to the database is broken.
        """
        try:
            for _ in self._driver.notifies(timeout=PATIENCE, stop_after=1):
                pass
        except self._driver_error as error:
            raise ConnectionError(str(error)) from error

    def close(self) -> None:
        self._connection.invalidate()  # the pool must not get a connection that listens
        self._connection.close()


class _BrokerWaiter:
    """Waits for a message on a link of the broker."""

    def __init__(self, announcer: MessageAnnouncer, name: str) -> None:
        self._link = announcer.broker.shards[0].link(_inbox(name))

    def wait(self) -> None:
        self._link.read(PATIENCE)

    def close(self) -> None:
        self._link.close()


class _Sleeper:
    """Sleeps, for a database driver that cannot wait for NOTIFY."""

    def wait(self) -> None:
        time.sleep(POLL)

    def close(self) -> None:
        pass


def notify(session: Session, table: Table) -> None:
    """Makes the commit of this transaction send NOTIFY, if the database is PostgreSQL.

    PostgreSQL cannot prepare a transaction that has sent NOTIFY. So two-phase commits send none.
    """
    if session.get_bind(clause=table).dialect.name == "postgresql" and not session.twophase:
        wake = text("SELECT pg_notify(:name, '')")
        session.execute(wake, {"name": table.name}, bind_arguments={"clause": table})


class Waker:
    """Wakes the relay over the broker, from a thread of its own: a commit must not wait for the broker."""

    def __init__(self, name: str) -> None:
        self._inbox = _inbox(name)
        self._lock = threading.Lock()
        self._pid = 0  # the process in which the thread runs; 0 if there is no thread
        self._is_asked = False

    def wake(self, announcer: MessageAnnouncer) -> None:
        """Wakes the relay soon. Does not block. Does nothing in a native thread of a gevent process."""
        if native_threads.is_native():
            return
        with self._lock:
            self._is_asked, is_running, self._pid = True, self._pid == os.getpid(), os.getpid()
        if not is_running:
            try:
                background.start("outbox-wake", lambda: self._send(announcer), repeat=False)
            except RuntimeError:  # the system has no room for another thread
                self._pid = 0

    def _send(self, announcer: MessageAnnouncer) -> None:
        while self._has_work():
            announcer.broker.shards[0].wake(self._inbox)

    def _has_work(self) -> bool:
        with self._lock:
            is_asked, self._is_asked = self._is_asked, False
            if not is_asked:
                self._pid = 0
            return is_asked


def _inbox(name: str) -> str:
    return f"outbox:{name}"
