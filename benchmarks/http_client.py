"""A keep-alive HTTP/1.1 client that pipelines POSTs. The publisher must use little CPU of the clients'
core."""

from __future__ import annotations

import socket

#: Requests that it sends before it reads the answers; few enough for the answers to fit into the socket
#: buffer.
WINDOW = 50


class Pipeline:
    """One connection. `post` blocks until it has every answer, and raises RuntimeError unless all are 2xx."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._host = address
        self._socket = socket.create_connection((host, int(port)), 30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""

    def post(self, requests: list[tuple[str, str]]) -> None:
        for first in range(0, len(requests), WINDOW):
            window = requests[first : first + WINDOW]
            self._socket.sendall(b"".join(self._request(path, body) for path, body in window))
            for _ in window:
                self._read_answer()

    def _request(self, path: str, body: str) -> bytes:
        content = body.encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: text/plain\r\n"
            f"Content-Length: {len(content)}\r\n\r\n"
        )
        return head.encode() + content

    def _read_answer(self) -> None:
        while b"\r\n\r\n" not in self._received:
            self._receive()
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        if status.split()[1][0] != "2":
            raise RuntimeError(f"publishing was answered with {status}")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        size = int(headers.get("content-length", 0))
        while len(self._received) < size:
            self._receive()
        self._received = self._received[size:]

    def _receive(self) -> None:
        data = self._socket.recv(65536)
        if not data:
            raise RuntimeError("the server closed the publishing connection")
        self._received += data
