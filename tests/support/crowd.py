"""Many clients in one thread: they connect, are cut at random, and come back with their last cursor."""

from __future__ import annotations

import contextlib
import json
import random
import selectors
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any

from .oracle import Segment


class Client:
    """One browser: a cursor that outlives its connections, and a log of each of them."""

    def __init__(self, channels: frozenset[str]) -> None:
        self.channels = channels
        self.cursor: str | None = None
        self.segments: list[Segment] = []
        self.statuses: list[int] = []
        self.connection: socket.socket | None = None
        self.cut_at = 0.0
        self.back_at = 0.0
        self.complete = 0  # bodies that came to their proper end
        self._raw = b""
        self._text = b""
        self._head = True

    def connect(self, port: int) -> socket.socket:
        """Sends a request; the answer comes by `feed`."""
        connection = socket.create_connection(("127.0.0.1", port), timeout=10)
        cursor = f"Last-Event-ID: {self.cursor}\r\n" if self.cursor else ""
        path = f"/stream?channels={','.join(sorted(self.channels))}"
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\n{cursor}\r\n".encode())
        connection.setblocking(False)
        self.connection = connection
        self.segments.append(Segment(self.channels, self.cursor))
        self._raw = self._text = b""
        self._head = True
        return connection

    def feed(self, data: bytes) -> None:
        """Takes what the server sent."""
        self._raw += data
        if self._head:
            head, end, rest = self._raw.partition(b"\r\n\r\n")
            if not end:
                return
            self.statuses.append(int(head.split(b" ", 2)[1]))
            self._head, self._raw = False, rest
        self._unchunk()
        *blocks, self._text = self._text.split(b"\n\n")
        for block in blocks:
            self._event(block)

    def _unchunk(self) -> None:
        while True:
            size, end, rest = self._raw.partition(b"\r\n")
            if not end or len(rest) < (length := int(size, 16)) + 2:
                return
            self.complete += length == 0
            self._text += rest[:length]
            self._raw = rest[length + 2 :]

    def _event(self, block: bytes) -> None:
        fields = dict(line.split(b": ", 1) for line in block.split(b"\n") if b": " in line)
        segment = self.segments[-1]
        kind = fields.get(b"event", b"").decode()
        if b"data" not in fields:
            return
        if b"id" in fields:
            self.cursor = fields[b"id"].decode()
        if kind == "sse.open":
            segment.opened_at = segment.cursor = self.cursor
            segment.resumed = json.loads(fields[b"data"])["resumed"]
        elif kind == "sse.reset":
            segment.resets.append(json.loads(fields[b"data"])["channels"])
            if b"id" in fields:
                segment.opened_at = self.cursor
                segment.serials.clear()
        elif not kind.startswith("sse."):
            segment.serials.append(json.loads(fields[b"data"])["n"])
        segment.cursor = self.cursor

    def cut(self, *, reset: bool) -> None:
        """Loses the connection."""
        if self.connection is not None:
            if reset:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.connection = None


class Crowd:
    """Clients that `step` keeps connected, cutting some now and then.

    :param life: shortest and longest seconds of a connection; None: they stay.
    :param pause: shortest and longest seconds until a cut client is back.
    :param other: gives a client another set of channels, or the same.
    """

    def __init__(
        self,
        port: int,
        clients: Sequence[Client],
        chance: random.Random,
        *,
        life: tuple[float, float] | None = None,
        pause: tuple[float, float] = (0.0, 1.0),
        other: Callable[[frozenset[str]], frozenset[str]] = lambda channels: channels,
    ) -> None:
        self.port = port
        self.clients = clients
        self.cuts = 0
        self._chance = chance
        self._life = life
        self._pause = pause
        self._other = other
        self._selector = selectors.DefaultSelector()

    def step(self, seconds: float = 0.05) -> None:
        """Lets the crowd live for a moment."""
        now = time.monotonic()
        for client in self.clients:
            if client.connection is None:
                if now >= client.back_at:
                    self._connect(client, now)
            elif self._life is not None and now >= client.cut_at:
                self.cuts += 1
                self._lose(client, now, reset=self._chance.random() < 0.5)
        for key, _ in self._selector.select(seconds):
            self._read(key.data, now)

    def _connect(self, client: Client, now: float) -> None:
        try:
            connection = client.connect(self.port)
        except OSError:
            client.back_at = now + 0.1
            return
        if self._life is not None:
            client.cut_at = now + self._chance.uniform(*self._life)
        self._selector.register(connection, selectors.EVENT_READ, client)

    def _read(self, client: Client, now: float) -> None:
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
            self._lose(client, now, reset=False)

    def _lose(self, client: Client, now: float, *, reset: bool) -> None:
        connection: Any = client.connection
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(connection)
        client.cut(reset=reset)
        client.back_at = now + self._chance.uniform(*self._pause)
        client.channels = self._other(client.channels)

    def stay(self) -> None:
        """Nobody is cut from now on."""
        self._life = None

    def until(self, condition: Callable[[], bool], seconds: float) -> None:
        """Lives on until `condition` holds; fails when `seconds` are over."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not reached within {seconds} seconds"
            self.step()

    def close(self) -> None:
        for client in self.clients:
            client.cut(reset=False)
        self._selector.close()
