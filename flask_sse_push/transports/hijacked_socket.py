"""Takes a connection out of a gevent socket, and leaves gunicorn a socket that leads nowhere."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from typing import Any

import gevent.socket
from gevent import monkey

#: Closes a descriptor: gevent's close looks for watchers of the descriptor; ours has none.
close_descriptor = monkey.get_original("os", "close")

#: Takes what a server would have sent.
Begin = Callable[[bytes], None]


class HijackedSocket(gevent.socket.socket):
    """What gunicorn is left with of a connection that was taken over. The first that is sent, the head of the
    response, goes to whom the connection belongs now; then it is as if the client had left, which gunicorn
    passes over quietly."""

    __slots__ = ()

    def sendall(self, data: Any, flags: int = 0) -> None:
        begin = _beginnings.pop(id(self), None)
        if begin is not None:
            begin(bytes(data))
            if data.startswith(b"HTTP/"):
                return
        raise BrokenPipeError(errno.EPIPE, "the connection was taken over")

    def close(self) -> None:
        begin = _beginnings.pop(id(self), None)
        if begin is not None:
            begin(b"")


#: Who is given the head of a response, by the id of the socket that gunicorn holds until it has closed it.
_beginnings: dict[int, Begin] = {}


def detach(client: Any, begin: Begin | None) -> int:
    """Takes the descriptor out of a gevent socket, which is `Seized` afterwards.

    The number is kept (`detach`): a duplicate would stay registered with gevent's loop on the same open file,
    and each stream that ends would make it register all descriptors anew.

    :param begin: called once with what is sent next, or with nothing when that never comes. None: the head
        has been sent.
    """
    fd: int = client.detach()
    client.__class__ = HijackedSocket
    if begin is not None:
        _beginnings[id(client)] = begin
    return fd


def self_test() -> bool:
    """Takes a socket over as streams do, and sees whether that gave what is expected."""
    ours, theirs = gevent.socket.socketpair()
    fd, told = -1, list[bytes]()
    try:
        before = ours.fileno()
        fd = detach(ours, told.append)
        os.write(fd, b"x")
        ours.sendall(b"HTTP/")
        if fd != before or theirs.recv(1) != b"x" or told != [b"HTTP/"]:
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
