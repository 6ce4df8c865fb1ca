"""Servers that no program expects: one never ends its answer, one always gives the same answer."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterator

#: Seconds between two bytes: far less than any limit for one read.
PAUSE = 0.2


class Dripping:
    """Answers each connection with `beginning`, then with `drop` again and again.

    `sent` counts the drops, so that a test can prove that the server dripped.
    """

    def __init__(self, beginning: bytes, drop: bytes = b"x") -> None:
        self._beginning, self._drop = beginning, drop
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._closed = threading.Event()
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self.sent = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # the listener was closed
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            connection.sendall(self._beginning)
            while not self._closed.wait(PAUSE):
                connection.sendall(self._drop)
                self.sent += 1

    def close(self) -> None:
        self._closed.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@contextlib.contextmanager
def dripping(beginning: bytes, drop: bytes = b"x") -> Iterator[Dripping]:
    """Runs a dripping server until the block ends."""
    server = Dripping(beginning, drop)
    try:
        yield server
    finally:
        server.close()


@contextlib.contextmanager
def parrot(answer: bytes) -> Iterator[int]:
    """Runs a server that answers each command of Redis with `answer`. Yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_accept, args=(listener, answer), daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, answer: bytes) -> None:
    with contextlib.suppress(OSError):  # the listener was closed
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_repeat, args=(connection, answer), daemon=True).start()


def _repeat(connection: socket.socket, answer: bytes) -> None:
    with connection, contextlib.suppress(OSError):
        while sent := connection.recv(65536):
            commands = re.findall(rb"(?:^|\r\n)\*\d+\r\n", sent)
            connection.sendall(answer * len(commands))
