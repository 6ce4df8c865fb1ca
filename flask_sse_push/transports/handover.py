"""Watches what gunicorn sends for one request, until a stream may take the connection."""

from __future__ import annotations

import contextlib
from typing import Any

import gevent.socket

from .head import CHANGED, HEAD_END, NOT_SENT, Obstacle, obstacle_in

#: The handover of each watched socket, by `id()` of the socket. A handover keeps its socket alive, so no
#: other object gets the same id before the handover ends.
_handovers: dict[int, Handover] = {}


class WatchedSocket(gevent.socket.socket):
    """The class of gunicorn's socket object during a handover. The handover gets all bytes."""

    __slots__ = ()

    def sendall(self, data: Any, flags: int = 0) -> None:
        _handovers[id(self)].sending(bytes(data))

    def close(self) -> None:
        _handovers[id(self)].end()
        self.close()  # the socket has its own class again


class Handover:
    """Decides whether a stream may take the connection of its request.

    The bytes that gunicorn sends are the proof. The stream may take the connection if gunicorn sends a
    fitting head, and then exactly the beginning of the body that the stream has yielded. The handover holds
    these bytes back, so that the stream can send them together with its first chunk.

    :param client: gunicorn's socket of the request.
    :param chunked: whether the stream sends the body in HTTP/1.1 chunks.
    """

    __slots__ = (
        "_chunked", "_class", "_client", "_encoding", "_expected", "_head_passed", "_held_begin",
        "_held_head", "_refused", "obstacle",
    )  # fmt: skip

    def __init__(self, client: Any, *, chunked: bool) -> None:
        previous = _handovers.get(id(client))
        if previous is not None:  # its stream never began, and the client uses the connection again
            previous.end()
        self._client = client
        self._class = type(client)
        self._chunked = chunked
        self._encoding: bytes | None = None
        self._refused: Obstacle | None = None  # an obstacle that was known before the head was sent
        self._head_passed = False  # whether gunicorn has sent a fitting head
        self._expected: bytes | None = None  # the beginning of the body, as gunicorn should send it
        # The head and the beginning of the body, if gunicorn has sent them and the client does not have them.
        self._held_head = self._held_begin = b""
        #: What keeps the stream from taking the connection; None if nothing does.
        self.obstacle: Obstacle | None = NOT_SENT
        client.__class__ = WatchedSocket
        _handovers[id(client)] = self

    def expect(self, begin: bytes, encoding: bytes | None) -> None:
        """Called before the response body yields its first bytes.

        :param begin: the first bytes.
        :param encoding: the content encoding of the body; None if there is none.
        """
        self._encoding = encoding
        self._expected = b"%X\r\n%b\r\n" % (len(begin), begin) if self._chunked else begin

    @property
    def began(self) -> bool:
        """Whether gunicorn has begun to send the response."""
        return self._head_passed or _handovers.get(id(self._client)) is not self

    def sending(self, data: bytes) -> None:
        """Called with the bytes that gunicorn sends. Sends them, or holds them back. May block."""
        if self._refused is not None:
            self._give_up(self._refused, data)
        elif not self._head_passed:
            self._send_head(data)
        elif self.obstacle is NOT_SENT and data == self._expected:
            self.obstacle, self._held_begin = None, data
        elif self._expected is None:  # bytes that a middleware has put before the stream's
            self._client_sends(data)
        else:
            self._give_up(CHANGED, data)

    def _send_head(self, data: bytes) -> None:
        head, end, rest = data.partition(HEAD_END)
        if head[8:10] == b" 1":  # an interim response, such as 103 Early Hints; the head comes later
            self._client_sends(data)
            return
        obstacle = obstacle_in(head + end, chunked=self._chunked, encoding=self._encoding)
        if obstacle is not None:
            self._give_up(obstacle, data)
            return
        self._head_passed = True
        if self._expected is None:  # the body has not begun, so these bytes must not wait for it
            self._client_sends(data)
            return
        self._held_head = head + end
        if rest:
            self.sending(rest)

    def _client_sends(self, data: bytes) -> None:
        self._class.sendall(self._client, data)

    def _give_up(self, obstacle: Obstacle, data: bytes) -> None:
        """Ends the handover because of an obstacle, and sends what was held back, then `data`."""
        held = self._take_held()
        self.obstacle = obstacle
        self._client.sendall(held + data)

    def take_head(self) -> bytes:
        """Ends the handover. Returns the head if the client does not have it yet; otherwise b"".

        The expected bytes were held back too, so the caller must send them after the head.
        """
        if _handovers.pop(id(self._client), None) is not None:
            self._client.__class__ = self._class
        head, self._held_head = self._held_head, b""
        return head

    def _take_held(self) -> bytes:
        """Ends the handover. Returns the bytes that gunicorn has sent and the client does not have yet."""
        begin, self._held_begin = self._held_begin, b""
        return self.take_head() + begin

    def end(self) -> None:
        """Ends the handover, and sends what was held back. May be called twice."""
        held = self._take_held()
        if held:
            with contextlib.suppress(OSError):  # gunicorn notices by itself that the client has left
                self._client.sendall(held)

    def leave_to_gunicorn(self) -> None:
        """Lets all bytes of gunicorn pass from now on. The handover only notes whether gunicorn sends any."""
        self._expected = None
        if self.began:
            self.end()

    def refuse(self, obstacle: Obstacle) -> None:
        """Makes the handover end when gunicorn begins to send, because of an obstacle that is known now."""
        self.obstacle = self._refused = obstacle
