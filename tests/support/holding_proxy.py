"""An HTTP proxy that does to streams what virus scanners, security gateways and old proxies do.

with HoldingProxy(port, hold=math.inf) as proxy:  # no response goes out before its end
    httpx.get(proxy.url)
"""

from __future__ import annotations

import contextlib
import math
import select
import socket
import threading
import time
from dataclasses import dataclass, field
from types import TracebackType

#: At most how many seconds a connection may be silent.
PATIENCE = 120.0


@dataclass
class HoldingProxy:
    """Passes each request on over a connection of its own."""

    port: int  # the port of the server behind the proxy
    hold: float = (
        0  # how many bytes of a response wait before the client gets them; `math.inf`: the whole response
    )
    cut_after: float = math.inf  # after how many seconds each response is cut off
    at_once: int = 100  # how many requests are passed on at the same time; the others wait
    requests: list[str] = field(default_factory=list)  # the request lines so far

    def __enter__(self) -> HoldingProxy:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._places = threading.Semaphore(self.at_once)
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def count(self, part: str) -> int:
        """How many request lines contain `part`."""
        return sum(part in line for line in list(self.requests))

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        client.settimeout(PATIENCE)
        with client, contextlib.suppress(OSError):
            request = _whole_request(client)
            if request:
                self.requests.append(request.split(b"\r\n", 1)[0].decode())
                with self._places, socket.create_connection(("127.0.0.1", self.port)) as server:
                    server.sendall(request)
                    self._pass_on(server, client)

    def _pass_on(self, server: socket.socket, client: socket.socket) -> None:
        """Sends the response to the client, held back as this proxy does."""
        held, end = b"", time.monotonic() + self.cut_after
        while (left := end - time.monotonic()) > 0:
            ready, _, _ = select.select([server, client], [], [], min(left, PATIENCE))
            if client in ready:  # it has left, since it sends nothing after its request
                return
            if server not in ready:
                continue
            data = server.recv(65536)
            held += data
            if not data or len(held) >= self.hold:
                client.sendall(held)
                held = b""
            if not data:
                return


def _whole_request(client: socket.socket) -> bytes:
    """Reads a request with its body. The server must close the connection after its response."""
    head, data = b"", b""
    while b"\r\n\r\n" not in data:
        more = client.recv(65536)
        if not more:
            return b""
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
    sizes = [int(line.split(b":")[1]) for line in lines if line.lower().startswith(b"content-length:")]
    while len(body) < sum(sizes):
        body += client.recv(65536)
    return b"\r\n".join([*lines, b"Connection: close", b"", body])
