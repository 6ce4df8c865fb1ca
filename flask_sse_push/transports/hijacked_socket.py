"""Takes the descriptor out of a gevent socket, and leaves gunicorn a socket that sends nothing."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from typing import Any

import gevent.socket
from gevent import monkey

#: The number in place of a descriptor where there is none. A write to it fails, as to a closed descriptor.
NO_DESCRIPTOR = -1

#: Closes a descriptor. gevent's own `close` would search for watchers of the descriptor; ours has none.
close_descriptor = monkey.get_original("os", "close")

#: Called once with the bytes that the server sends next, or with b"" when it closes the socket instead.
HeadHandler = Callable[[bytes], None]

#: Handlers that were not called yet, by the id of the socket, which gunicorn holds until it has closed it.
_head_handlers: dict[int, HeadHandler] = {}


class HijackedSocket(gevent.socket.socket):
    """What gunicorn holds after its socket was hijacked.

    The first bytes that gunicorn sends, the head of the response, go to the stream that owns the connection.
    Any later send fails as if the client had left, which gunicorn ignores quietly.
    """

    __slots__ = ()

    def sendall(self, data: Any, flags: int = 0) -> None:
        handler = _head_handlers.pop(id(self), None)
        if handler is not None:
            handler(bytes(data))
            if data.startswith(b"HTTP/"):
                return
        raise BrokenPipeError(errno.EPIPE, "the connection was hijacked")

    def close(self) -> None:
        handler = _head_handlers.pop(id(self), None)
        if handler is not None:
            handler(b"")


def detach(client: Any, on_head: HeadHandler | None) -> int:
    """Takes the descriptor out of a gevent socket and returns it; the socket becomes a `HijackedSocket`.

    The descriptor keeps its number. With a duplicate, the old number would stay registered in gevent's loop,
    and each stream that ends would make the loop register all descriptors again.

    :param on_head: handler of the response's head; None when the head was sent before.
    """
    fd: int = client.detach()
    client.__class__ = HijackedSocket
    if on_head is not None:
        _head_handlers[id(client)] = on_head
    return fd


def self_test() -> bool:
    """Hijacks a socket pair as streams do, and returns whether it works with this version of gevent."""
    ours, theirs = gevent.socket.socketpair()
    fd, heads = NO_DESCRIPTOR, list[bytes]()
    try:
        before = ours.fileno()
        fd = detach(ours, heads.append)
        os.write(fd, b"x")
        ours.sendall(b"HTTP/")
        if fd != before or theirs.recv(1) != b"x" or heads != [b"HTTP/"]:
            return False
        ours.sendall(b"x")
    except BrokenPipeError:
        return True
    except (OSError, AttributeError, TypeError):
        return False
    finally:
        ours.close()
        theirs.close()
        with contextlib.suppress(OSError):
            close_descriptor(fd)
    return False
