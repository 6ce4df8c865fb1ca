"""Takes the file descriptor out of a gevent socket. gunicorn keeps the socket, which then sends nothing."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from typing import Any

import gevent.socket
from gevent import monkey

#: Stands for "no file descriptor". A write to this number fails, as to a closed descriptor.
NO_DESCRIPTOR = -1

#: Closes a descriptor. gevent's own `close` would first search for gevent's watchers of the descriptor, but a
#: hijacked descriptor has no such watchers.
close_descriptor = monkey.get_original("os", "close")

#: A function that is called once, with the next bytes that gunicorn sends: usually the head of the response.
#: If gunicorn closes the socket without sending, the function is called with b"".
HeadHandler = Callable[[bytes], None]

#: Handlers that were not called yet, by `id()` of the socket. gunicorn keeps each socket until it closes the
#: socket, so no other object can get the same id before.
_head_handlers: dict[int, HeadHandler] = {}


class HijackedSocket(gevent.socket.socket):
    """The class of gunicorn's socket object after the connection was hijacked.

    The first bytes that gunicorn sends, usually the head of the response, go to the handler of the stream
    that owns the connection. Any later send fails as if the client had left. gunicorn ignores that error.
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
    """Takes the file descriptor out of a gevent socket and returns it.

    The socket object becomes a `HijackedSocket`. The descriptor is not duplicated: with a duplicate, gevent's
    loop would register all descriptors again whenever a stream ends.

    :param on_head: gets the head of the response; None if gunicorn has sent the head already.
    """
    fd: int = client.detach()
    client.__class__ = HijackedSocket
    if on_head is not None:
        _head_handlers[id(client)] = on_head
    return fd


def self_test() -> bool:
    """Returns whether hijacking works with this version of gevent. Tries it on a pair of sockets."""
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
