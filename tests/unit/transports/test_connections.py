"""The table of hijacked connections forgets a connection that it closes, also if a copy of it stays open."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from typing import Any, cast

import gevent.socket
import pytest

from flask_sse_push.hub.stream import Stream
from flask_sse_push.transports.connections import ConnectionTable
from flask_sse_push.transports.hijacked_stream import HijackedStream

STREAM = cast(HijackedStream, object())


class Connections:
    """A table, the streams that have left it, and pairs of sockets."""

    def __init__(self) -> None:
        self.left: list[Stream] = []
        self.table = ConnectionTable(self.left.append)
        self._theirs: list[Any] = []

    def add(self) -> tuple[int, Any]:
        """Returns the descriptor of a connection in the table, and the client's socket."""
        ours, theirs = gevent.socket.socketpair()
        self._theirs.append(theirs)
        return self.table.add(STREAM, ours), theirs

    def reported(self) -> list[int]:
        return [fd for fd, _ in self.table._epoll.poll(0)]

    def close(self) -> None:
        for theirs in self._theirs:
            theirs.close()


@pytest.fixture
def connections() -> Iterator[Connections]:
    connections = Connections()
    yield connections
    connections.close()


def test_a_copy_of_a_closed_connection_is_not_watched(connections: Connections) -> None:
    """A forked child may have such a copy."""
    fd, theirs = connections.add()
    copy = os.dup(fd)
    connections.table.close(STREAM, fd)
    theirs.close()
    assert connections.reported() == []
    os.close(copy)
    assert connections.left == [STREAM]


def test_a_new_connection_with_the_same_descriptor_is_not_taken_for_the_old_one(
    connections: Connections,
) -> None:
    fd, theirs = connections.add()
    copy = os.dup(fd)
    connections.table.close(STREAM, fd)
    while connections.add()[0] != fd:
        pass
    theirs.close()
    assert connections.reported() == []
    os.close(copy)


def test_a_child_closes_its_copies_and_leaves_the_epoll_object_as_it_is(connections: Connections) -> None:
    fd, theirs = connections.add()
    fds = os.dup(connections.table._epoll.fileno()), os.dup(fd)  # what the parent has
    connections.table.after_fork()
    theirs.close()
    parents = select.epoll.fromfd(fds[0])
    assert [reported for reported, _ in parents.poll(0)] == [fd]
    assert connections.left == []
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    parents.close()
    os.close(fds[1])
