"""A small SSE client over a plain socket, for tests that check bytes, broken connections and time."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Received:
    """One event that came: its fields, and the monotonic time at which it came."""

    type: str = "message"
    data: str = ""
    id: str | None = None
    retry: int | None = None
    at: float = field(default_factory=time.monotonic)

    def json(self) -> Any:
        return json.loads(self.data)


class Stream:
    """One GET of a URL, or another method, whose response the test reads event by event.

    `cursor` is the last event id, as a browser keeps it. If the headers have `Expect`, the body is sent when
    the server has said that it continues.
    """

    def __init__(
        self,
        url: str,
        *,
        cursor: str | None = None,
        headers: dict[str, str] | None = None,
        method: str = "GET",
        timeout: float = 60.0,
        version: str = "1.1",
        receive_buffer: int | None = None,
        body: Sequence[bytes] = (),
    ) -> None:
        parts = urlsplit(url)
        self.cursor = cursor
        self._buffer = b""
        self._timeout = timeout
        self._socket = socket.socket()
        if receive_buffer:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.settimeout(timeout)
        self._socket.connect((parts.hostname or "127.0.0.1", parts.port or 80))
        lines = [f"{method} {parts.path}{'?' + parts.query if parts.query else ''} HTTP/{version}"]
        lines += ["Host: test", "Accept: text/event-stream"]
        if cursor is not None:
            lines.append(f"Last-Event-ID: {cursor}")
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        self._socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        if headers and "Expect" in headers:
            assert self._until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue"
        for part in body:
            self._socket.sendall(part)
        head = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        self.status = int(head[0].split()[1])
        self.headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:]) if name
        }
        self._chunked = self.headers.get("transfer-encoding") == "chunked"
        self._text = b""
        self.complete = False  # whether the body ended with its last chunk

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_socket"):
            self._socket.close()

    def _more(self) -> None:
        data = self._socket.recv(65536)
        if not data:
            raise EOFError("the server closed the connection")
        self._buffer += data

    def _until(self, end: bytes) -> bytes:
        while end not in self._buffer:
            self._more()
        part, _, self._buffer = self._buffer.partition(end)
        return part

    def _exactly(self, length: int) -> bytes:
        while len(self._buffer) < length:
            self._more()
        part, self._buffer = self._buffer[:length], self._buffer[length:]
        return part

    def chunk(self) -> bytes:
        """The next chunk of the body; b"" when the body ends."""
        if not self._chunked:
            length = int(self.headers.get("content-length", "-1"))
            if length >= 0:
                self.headers["content-length"] = "0"
                return self._exactly(length)
            if not self._buffer:
                self._more()
            data, self._buffer = self._buffer, b""
            return data
        size = int(self._until(b"\r\n"), 16)
        data = self._exactly(size)
        self._exactly(2)
        self.complete = size == 0
        return data

    def body(self) -> bytes:
        """The whole body. Only for bodies that end."""
        parts = []
        while part := self.chunk():
            parts.append(part)
        return b"".join(parts)

    def __iter__(self) -> Iterator[Received]:
        """Events until the body ends. Raises EOFError if it is cut off, TimeoutError if nothing comes."""
        while True:
            while b"\n\n" in self._text:
                block, _, self._text = self._text.partition(b"\n\n")
                event = self._event(block.decode())
                if event is not None:
                    yield event
            data = self.chunk()
            if not data:
                return
            self._text += data

    def _event(self, block: str) -> Received | None:
        event = Received()
        data = []
        for line in block.split("\n"):
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "data":
                data.append(value)
            elif name == "event":
                event.type = value
            elif name == "id":
                event.id = self.cursor = value
            elif name == "retry":
                event.retry = int(value)
        if not data:
            return None
        event.data = "\n".join(data)
        return event

    def next(self) -> Received:
        """The next event of any type."""
        return next(iter(self))

    def next_of(self, *types: str) -> Received:
        """The next event of one of these types. Skips other events, but not for longer than the timeout."""
        deadline = time.monotonic() + self._timeout
        for event in self:
            if event.type in types:
                return event
            if time.monotonic() > deadline:
                raise TimeoutError(f"no {types} came; the last event was {event}")
        raise EOFError(f"the stream ended before {types}")

    def take(self, count: int, *, control: bool = False) -> list[Received]:
        """The next `count` events. Skips the protocol's own `sse.*` events, unless `control` is set.
        Raises TimeoutError if only skipped events have come for as long as the timeout."""
        events: list[Received] = []
        if count == 0:
            return events
        deadline = time.monotonic() + self._timeout
        for event in self:
            if control or not event.type.startswith("sse."):
                events.append(event)
                deadline = time.monotonic() + self._timeout
                if len(events) == count:
                    return events
            if time.monotonic() > deadline:
                raise TimeoutError(f"only {len(events)} of {count} events came; the last event was {event}")
        raise EOFError(f"the stream ended after {len(events)} of {count} events")

    def stop_sending(self) -> None:
        """Closes the client's half of the connection, as `nc -N` does."""
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Closes the connection as a browser does."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def reset(self) -> None:
        """Closes the connection with a RST, as a crashed client does."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()
