"""A TCP proxy that fails on purpose: it can freeze, delay or cut connections, and drop a reply.

with Proxy(port) as proxy:
    client = redis.Redis(port=proxy.port)
    proxy.replies.drop_next()  # the server does the work, the client gets no reply
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable

#: Bytes that the proxy reads at once. A reply of a test's server is smaller, so it is one chunk.
CHUNK = 65536


class Direction:
    """One direction through the proxy, for all connections."""

    def __init__(self) -> None:
        self.delay = 0.0  # seconds for which each chunk is held back
        self.carried = 0  # chunks that went through
        self.dropped = 0  # chunks that were dropped
        self._open = threading.Event()
        self._open.set()
        self._lock = threading.Lock()
        self._to_drop = 0

    def freeze(self) -> None:
        """Holds all bytes back. Connections stay open."""
        self._open.clear()

    def thaw(self) -> None:
        """Lets bytes through again, also the bytes that were held back."""
        self._open.set()

    def drop_next(self, count: int = 1) -> None:
        """Drops the next `count` chunks. Resets the connection of each."""
        with self._lock:
            self._to_drop += count

    def drop_no_more(self) -> None:
        """Cancels the drops that `drop_next` ordered and that have not happened yet."""
        with self._lock:
            self._to_drop = 0

    def lets_through(self) -> bool:
        """Waits while chunks of this direction are held back; returns whether the next chunk may go on."""
        self._open.wait()
        if self.delay:
            time.sleep(self.delay)
        with self._lock:
            if self._to_drop:
                self._to_drop -= 1
                self.dropped += 1
                return False
            self.carried += 1
            return True


class Pair:
    """One connection through the proxy: its two sockets, and which directions are held back."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.ends = client, server
        self.requests = threading.Event()
        self.replies = threading.Event()
        self.release()

    def hold(self, *, requests: bool, replies: bool) -> None:
        """Holds back one direction or both, until `release`."""
        for released, held in ((self.requests, requests), (self.replies, replies)):
            if held:
                released.clear()

    def release(self) -> None:
        """Lets bytes through in both directions."""
        self.requests.set()
        self.replies.set()


class Proxy:
    """Listens on its own port. Connects each client to `port`, and carries bytes both ways."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._target = (host, port)
        self.requests = Direction()
        self.replies = Direction()
        self.accepted = 0  # connections so far
        self._pairs: set[Pair] = set()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server((host, 0))
        self.port = int(self._listener.getsockname()[1])
        self._start(self._accept)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def lead_to(self, port: int) -> None:
        """Leads new connections to another port of the same host. Open connections stay as they are."""
        self._target = (self._target[0], port)

    def cut(self) -> int:
        """Resets all open connections; returns how many. New connections work."""
        with self._lock:
            pairs, self._pairs = self._pairs, set()
        for pair in pairs:
            for end in pair.ends:
                _reset(end)
            pair.release()
        return len(pairs)

    def hold(self, *, requests: bool = True, replies: bool = True) -> int:
        """Freezes all open connections for good, without a FIN; returns how many. New connections work."""
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            pair.hold(requests=requests, replies=replies)
        return len(pairs)

    def close(self) -> None:
        """Stops listening, resets all connections and waits for the threads."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for direction in (self.requests, self.replies):
            direction.delay = 0
            direction.thaw()
        self.cut()
        for thread in self._threads:
            thread.join(60)

    def _start(self, body: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=body, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target, 30)
            except OSError:
                _reset(client)
                continue
            server.settimeout(None)
            with self._lock:
                self.accepted += 1
                pair = Pair(client, server)
                self._pairs.add(pair)
            self._start(self._carry, client, server, self.requests, pair.requests)
            self._start(self._carry, server, client, self.replies, pair.replies)

    def _carry(
        self, source: socket.socket, target: socket.socket, direction: Direction, released: threading.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(CHUNK):
                released.wait()
                if not direction.lets_through():
                    _reset(target)
                    _reset(source)
                    return
                target.sendall(chunk)
            target.shutdown(socket.SHUT_WR)


def _reset(end: socket.socket) -> None:
    """Closes a socket with a RST, and wakes the thread that reads from it."""
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RD)
    end.close()
