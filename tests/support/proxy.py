"""A TCP proxy that fails on purpose: it can freeze, delay, cut, and swallow a reply.

with Proxy(port) as proxy:
    client = redis.Redis(port=proxy.port)
    proxy.replies.drop_next()  # the server does the work, the client never hears of it
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable

#: Bytes taken at once. One reply of a test's server is one piece, as long as it is smaller.
PIECE = 65536


class Way:
    """One direction through the proxy, for all connections."""

    def __init__(self) -> None:
        self.delay = 0.0  # seconds that each piece is held back
        self.pieces = 0  # how many were carried
        self.dropped = 0  # how many were swallowed
        self._open = threading.Event()
        self._open.set()
        self._lock = threading.Lock()
        self._to_drop = 0

    def freeze(self) -> None:
        """Holds everything back; connections stay open."""
        self._open.clear()

    def thaw(self) -> None:
        """Lets everything go on, what was held back included."""
        self._open.set()

    def drop_next(self, count: int = 1) -> None:
        """Swallows the next pieces, each together with the connection it came by."""
        with self._lock:
            self._to_drop += count

    def drop_no_more(self) -> None:
        """Takes back what `drop_next` asked for and has not come."""
        with self._lock:
            self._to_drop = 0

    def admits(self) -> bool:
        """Waits as this way makes a piece wait; returns whether it may go on."""
        self._open.wait()
        if self.delay:
            time.sleep(self.delay)
        with self._lock:
            if self._to_drop:
                self._to_drop -= 1
                self.dropped += 1
                return False
            self.pieces += 1
            return True


class Pair:
    """One connection through the proxy: both its ends, and whether it carries anything."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.ends = client, server
        self.requests = threading.Event()
        self.replies = threading.Event()
        self.release()

    def hold(self, *, requests: bool, replies: bool) -> None:
        """Holds one direction or both back until released."""
        for recovery, held in ((self.requests, requests), (self.replies, replies)):
            if held:
                recovery.clear()

    def release(self) -> None:
        """Lets both directions go on."""
        self.requests.set()
        self.replies.set()


class Proxy:
    """Listens on a port of its own and carries each connection to `port` and back."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._target = (host, port)
        self.requests = Way()
        self.replies = Way()
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
        """New connections go to another port of the same host; those of this moment stay where they are."""
        self._target = (self._target[0], port)

    def cut(self) -> int:
        """Resets all connections of this moment; returns how many. New ones are welcome."""
        with self._lock:
            pairs, self._pairs = self._pairs, set()
        for pair in pairs:
            for end in pair.ends:
                _reset(end)
            pair.release()
        return len(pairs)

    def hold(self, *, requests: bool = True, replies: bool = True) -> int:
        """Freezes the connections of this moment for good, without a FIN; returns how many. New ones work."""
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
        for recovery in (self.requests, self.replies):
            recovery.delay = 0
            recovery.thaw()
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
        self, source: socket.socket, target: socket.socket, recovery: Way, released: threading.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(PIECE):
                released.wait()
                if not recovery.admits():
                    _reset(target)
                    _reset(source)
                    return
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)


def _reset(end: socket.socket) -> None:
    """Ends a connection with a RST, and any wait for it."""
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RD)
    end.close()
