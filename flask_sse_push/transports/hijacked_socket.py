"""Takes the file descriptor out of a gevent socket. gunicorn keeps the socket, which then sends nothing."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import Any

import gevent.socket
from gevent import monkey

from .handover import Handover

#: Stands for "no file descriptor". A write to this number fails, as to a closed descriptor.
NO_DESCRIPTOR = -1

#: Closes a descriptor. gevent's own `close` would first search for gevent's watchers of the descriptor, but a
#: hijacked descriptor has no such watchers.
close_descriptor = monkey.get_original("os", "close")


class HijackedSocket(gevent.socket.socket):
    """The class of gunicorn's socket object after the connection was hijacked.

    Any send fails as if the client had left. gunicorn ignores that error.
    """

    __slots__ = ()

    def sendall(self, data: Any, flags: int = 0) -> None:
        raise BrokenPipeError(errno.EPIPE, "the connection was hijacked")

    def close(self) -> None:
        """Does nothing: the stream owns the connection."""


def detach(client: Any) -> int:
    """Takes the file descriptor out of a gevent socket and returns it.

    The socket object becomes a `HijackedSocket`. The descriptor is not duplicated: with a duplicate, gevent's
    loop would register all descriptors again whenever a stream ends.
    """
    fd: int = client.detach()
    client.__class__ = HijackedSocket
    return fd


def self_test() -> bool:
    """Returns whether hijacking works with this version of gevent. Tries it on a pair of sockets."""
    ours, theirs = gevent.socket.socketpair()
    fd, head = NO_DESCRIPTOR, b"HTTP/1.0 200 OK\r\n\r\n"
    try:
        handover = Handover(ours, chunked=False)
        handover.expect(b"x", None)
        ours.sendall(head)
        ours.sendall(b"x")
        before = ours.fileno()
        if handover.obstacle is not None or handover.take_head() != head:
            return False
        fd = detach(ours)
        os.write(fd, b"y")
        if fd != before or theirs.recv(2) != b"y":
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
