"""Many clients in one thread. They connect, are cut off at random, and return with their cursors."""

from __future__ import annotations

import contextlib
import random
import re
import selectors
import socket
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from flask_sse_push.protocol.cursor import parse

from .account.logs import LogAccount
from .account.records import Connection, Got, cursor_of, records_of

#: Seconds after which `Crowd.step` checks again which clients connect or leave.
CHECK_EVERY = 0.01
#: Most frames have this form; the pattern is quicker than `records_of`.
_EVENT = re.compile(rb'id: (\S+)\ndata: \{"n": ?(\d+)')


class Client:
    """One browser: it keeps its cursor from one connection to the next, and a log of each connection."""

    def __init__(
        self, channels: Iterable[str], cursor: str | None = None, *, receive_buffer: int | None = None
    ) -> None:
        self.channels = frozenset(channels)
        self.cursor = cursor
        self.receive_buffer = receive_buffer  # bytes; None: the system's default
        self.log: list[Connection] = []
        self.connection: socket.socket | None = None
        self.cut_at = 0.0
        self.back_at = 0.0
        self.complete = 0  # bodies that ended with their last chunk
        self.truncated = 0  # connections that the server ended in the middle of a body
        self._raw = b""
        self._text = b""
        self._head = True
        self._has_last_chunk = False

    def __del__(self) -> None:
        if self.connection is not None:
            self.connection.close()

    def connect(self, port: int) -> socket.socket:
        """Opens a connection and sends the request. Pass the bytes of the response to `feed`."""
        asked_at = time.monotonic()
        connection = socket.socket()
        if self.receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer)
        connection.settimeout(30)
        try:
            connection.connect(("127.0.0.1", port))
        except OSError:
            connection.close()
            raise
        connection.sendall(self.request().encode())
        connection.setblocking(False)
        self.connection = connection
        self.log.append(Connection(self.channels, self.cursor, asked_at))
        self._raw = self._text = b""
        self._head, self._has_last_chunk = True, False
        return connection

    def request(self) -> str:
        """The request for a stream of its channels, from its cursor on."""
        cursor = f"Last-Event-ID: {self.cursor}\r\n" if self.cursor else ""
        path = f"/stream?channels={','.join(sorted(self.channels))}"
        return f"GET {path} HTTP/1.1\r\nHost: test\r\n{cursor}\r\n"

    @property
    def is_open(self) -> bool:
        """Whether the current connection has sent its first record."""
        return self.connection is not None and bool(self.log[-1].records)

    def feed(self, data: bytes) -> None:
        """Takes bytes that came from the server."""
        now = time.monotonic()
        self._raw += data
        if self._head:
            head, end, rest = self._raw.partition(b"\r\n\r\n")
            if not end:
                return
            self.log[-1].answered_at = now
            self.log[-1].status = int(head.split(b" ", 2)[1])
            self._head, self._raw = False, rest
        if self.log[-1].status == 200:
            self._unchunk()
            *blocks, self._text = self._text.split(b"\n\n")
            for block in blocks:
                self._block(block, now)

    def _unchunk(self) -> None:
        while True:
            size, end, rest = self._raw.partition(b"\r\n")
            if not end or len(rest) < (length := int(size, 16)) + 2:
                return
            self._has_last_chunk = self._has_last_chunk or length == 0
            self._text += rest[:length]
            self._raw = rest[length + 2 :]

    def _block(self, block: bytes, now: float) -> None:
        plain = _EVENT.match(block)
        if plain is not None:
            self.cursor = plain[1].decode()
            self.log[-1].records.append(Got(int(plain[2]), self.cursor, now))
            return
        for record in records_of(block, now):
            self.cursor = cursor_of(record) or self.cursor
            self.log[-1].records.append(record)

    def note_end(self) -> None:
        """Notes that the server closed the connection."""
        if self._has_last_chunk:
            self.complete += 1
        elif not self._head:
            self.truncated += 1

    def cut(self, *, reset: bool) -> None:
        """Closes the connection; with `reset`, with a RST."""
        if self.connection is not None:
            if reset:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.connection = None

    def has_all(self, account: LogAccount) -> bool:
        """Whether its cursor is at or after the newest acknowledged event of its channels."""
        newest = account.newest(self.channels)
        mine = parse(self.cursor or "")
        if newest is None or not self.is_open:
            return newest is None
        return mine is not None and mine.epoch == newest.epoch and mine.id >= newest.id


class Crowd:
    """Clients that `step` keeps connected, and whose connections it cuts at random.

    :param ports: the ports of the servers; a client returns to any of them.
    :param life: shortest and longest seconds of a connection; None: connections are not cut.
    :param pause: shortest and longest seconds until a client returns after a cut.
    :param other: returns the channels with which a client returns, given the channels it had.
    """

    def __init__(
        self,
        ports: Sequence[int],
        clients: Iterable[Client],
        chance: random.Random,
        *,
        life: tuple[float, float] | None = None,
        pause: tuple[float, float] = (0.0, 1.0),
        other: Callable[[frozenset[str]], frozenset[str]] = lambda channels: channels,
    ) -> None:
        self.ports = ports
        self.clients = list(clients)
        self.cuts = 0
        self.refusals = 0  # connections that no server accepted
        self.pause = pause
        self.life = life
        self._chance = chance
        self._other = other
        self._selector = selectors.DefaultSelector()
        self._checked_at = 0.0

    def step(self, seconds: float = CHECK_EVERY) -> None:
        """Connects and cuts clients, then reads from them. Waits at most `seconds` for bytes."""
        now = time.monotonic()
        if now - self._checked_at >= CHECK_EVERY:
            self._checked_at = now
            self._connect_and_cut(now)
        for key, _ in self._selector.select(seconds):
            self._read(key.data)

    def _connect_and_cut(self, now: float) -> None:
        for client in self.clients:
            if client.connection is None:
                if now >= client.back_at:
                    self._connect(client, now)
            elif self.life is not None and now >= client.cut_at:
                self.cuts += 1
                self.lose(client, reset=self._chance.random() < 0.5)

    def _connect(self, client: Client, now: float) -> None:
        try:
            connection = client.connect(self._chance.choice(self.ports))
        except OSError:
            self.refusals += 1
            client.back_at = now + 0.1
            return
        if self.life is not None:
            client.cut_at = now + self._chance.uniform(*self.life)
        self._selector.register(connection, selectors.EVENT_READ, client)

    def _read(self, client: Client) -> None:
        connection = client.connection
        if connection is None:
            return
        try:
            data = connection.recv(262_144)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            client.feed(data)
        else:
            client.note_end()
            self.lose(client, reset=False)

    def lose(self, client: Client, *, reset: bool) -> None:
        """Cuts the connection of a client, which returns after a pause."""
        connection: Any = client.connection
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(connection)
        client.cut(reset=reset)
        client.back_at = time.monotonic() + self._chance.uniform(*self.pause)
        client.channels = self._other(client.channels)

    def stop_reading(self, client: Client) -> None:
        """Stops reading from the connection of `client`, which stays open."""
        assert client.connection is not None
        self._selector.unregister(client.connection)

    def resume_reading(self, client: Client) -> None:
        """Reads from the connection of `client` again."""
        assert client.connection is not None
        self._selector.register(client.connection, selectors.EVENT_READ, client)

    def stop_cutting(self) -> None:
        """Stops cutting connections."""
        self.life = None

    def run(self, seconds: float) -> None:
        """Steps for `seconds`."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.step()

    def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Steps until `condition` holds; returns False if it does not hold within `seconds`."""
        deadline = time.monotonic() + seconds
        while not condition():
            now = time.monotonic()
            if now > deadline:
                return False
            self.run(min(5 * CHECK_EVERY, deadline - now))
        return True

    def open_all(self, seconds: float = 120) -> None:
        """Steps until all clients have open streams. Cuts no connection during this time."""
        life, self.life = self.life, None
        assert self.until(lambda: all(client.is_open for client in self.clients), seconds), (
            f"{sum(not client.is_open for client in self.clients)} clients have no stream"
        )
        self.start_cutting(life)

    def start_cutting(self, life: tuple[float, float] | None) -> None:
        """From now on cuts each connection after `life[0]` to `life[1]` seconds; with None, cuts none."""
        self.life = life
        if life is not None:
            for client in self.clients:
                client.cut_at = time.monotonic() + self._chance.uniform(0, life[1])

    def catch_up(self, account: LogAccount, seconds: float = 120) -> int:
        """Steps until all clients have the newest events. Returns how many clients have not, after `seconds`.
        Never fails: the verdict reports missing events."""
        self.until(lambda: all(client.has_all(account) for client in self.clients), seconds)
        return sum(not client.has_all(account) for client in self.clients)

    def statuses(self) -> set[int]:
        """All status codes that clients got."""
        return {
            connection.status
            for client in self.clients
            for connection in client.log
            if connection.status is not None
        }

    def close(self) -> None:
        """Closes all connections."""
        for client in self.clients:
            client.cut(reset=False)
        self._selector.close()
