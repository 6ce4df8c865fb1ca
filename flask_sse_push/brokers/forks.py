"""Forks: what the child of a fork leaves to its parent.

`multiprocessing`, `os.fork` and some libraries make a child that begins as a copy of its parent. The parts of
this package that work for the parent must not work in the child too: the parent's events would go out twice,
and a connection of the parent would stay open until the child ends. So in a child

- each part of the parent gives up what it has, see `watch`;
- the parent's greenlets do not run, see `stays_in_parent`. Python ends the parent's threads by itself;
- the first call of a publisher, or the first stream, makes new parts with connections of their own.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache, wraps
from typing import Any, NoReturn, ParamSpec, Protocol, TypeVar
from weakref import WeakSet

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


class Part(Protocol):
    """A part of a process that a child must not use."""

    def after_fork(self) -> None:
        """Called in the child. Closes the child's copies of descriptors, without a word to the other side.

        Must not wait for a lock: a thread that the child does not have may hold it.
        """


_parts: WeakSet[Part] = WeakSet()
_functions: list[Callable[[], None]] = []
_kept: list[object] = []


#: The sockets that a child still shares with its parent: the inode of each descriptor. Empty without gevent.
parents_sockets: dict[int, int] = {}


class _Child:
    """The state of a child of a fork."""

    forker: Any = None  # the greenlet that the child goes on with


class _Start:
    """When this process imported this module, or was forked after that; in seconds since 1970."""

    at = time.time()


def started_at() -> float:
    """Returns when this process imported this module, or was forked after that, in seconds since 1970."""
    return _Start.at


def watch(part: Part) -> None:
    """Makes each child of this process call `part.after_fork`, as long as `part` exists."""
    _parts.add(part)


def call_in_child(function: Callable[[], None]) -> None:
    """Makes each child of this process call `function`."""
    _functions.append(function)


def keep(thing: object) -> None:
    """Keeps a thing of the parent until the child ends: its finalizer could harm the parent."""
    _kept.append(thing)


def close_copy(socket: Any) -> None:
    """Closes the child's copy of a socket of the parent. The connection stays open."""
    descriptor = socket.detach()
    if descriptor >= 0:
        # gevent's own function would leave the descriptor open until the child's event loop runs.
        original("close")(descriptor)


def silence(descriptor: int) -> None:
    """Puts `/dev/null` in the place of the child's copy of a descriptor.

    For a descriptor that code outside this package uses and may close: its number must not become free.
    """
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, descriptor, inheritable=False)
    original("close")(null)


def refuse(*_: object) -> NoReturn:
    """Stops a call in the child that only the parent may make. Never returns.

    In the copy of a greenlet of the parent, waits for ever.

    :raises RuntimeError: in the thread or greenlet that has forked.
    """
    current = _greenlet()
    if current is None or current is _Child.forker:
        raise RuntimeError(
            "this object belongs to the parent of this process. After a fork, the child may publish and may "
            "open streams of its own, but cannot go on with a stream or a run of its parent"
        )
    current.kept = current  # a greenlet that nobody refers to would be killed
    while True:
        sys.modules["gevent"].get_hub().switch()


def leave_to_parent(client: Any) -> None:
    """Ends a request in the child if the parent serves it too: the client must not get two responses.

    :param client: the client's socket.
    """
    descriptor = client.fileno()
    if descriptor in parents_sockets and parents_sockets[descriptor] == os.fstat(descriptor).st_ino:
        close_copy(client)
        refuse()


def stays_in_parent(function: Callable[P, T]) -> Callable[P, T]:
    """A decorator: if the process forks while a call of `function` waits, the call never ends in the child.

    The child has copies of all greenlets of its parent, and gevent would wake them there too. Without gevent
    the decorator does nothing: of all threads, only the thread that forks exists in the child.
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        current = _greenlet()
        if current is None or "switch" in vars(current):
            return function(*args, **kwargs)
        gate = _Gate(current)
        try:
            return function(*args, **kwargs)
        finally:
            gate.remove()

    return call


class _Gate:
    """Takes the place of the two methods of a greenlet that gevent calls to go on with the greenlet.

    In a child of the process that made the gate, the two methods do nothing.
    """

    __slots__ = ("_greenlet", "_switch", "_throw", "pid")

    def __init__(self, greenlet: Any) -> None:
        self.pid = os.getpid()
        self._greenlet, self._switch, self._throw = greenlet, greenlet.switch, greenlet.throw
        greenlet.switch, greenlet.throw = self.switch, self.throw

    def switch(self, *values: object) -> object:
        return self._switch(*values) if self.pid == os.getpid() else None

    def throw(self, *error: object) -> object:
        return self._throw(*error) if self.pid == os.getpid() else None

    def remove(self) -> None:
        """Gives the greenlet its own methods again."""
        del self._greenlet.switch, self._greenlet.throw


def _greenlet() -> Any:
    """Returns the greenlet of gevent that runs this code; None in any other code."""
    if "gevent" not in sys.modules:
        return None
    current = _getcurrent()()
    return None if current.parent is None else current


@cache
def _getcurrent() -> Callable[[], Any]:
    from gevent import getcurrent

    return getcurrent


@cache
def original(name: str) -> Callable[..., Any]:
    """Returns a function of `os` as it was before gevent's monkey patching."""
    if "gevent.monkey" not in sys.modules:
        return getattr(os, name)  # type: ignore[no-any-return]
    from gevent.monkey import get_original

    return get_original("os", name)  # type: ignore[no-any-return]


def _after_fork() -> None:
    _Start.at = time.time()
    current = _Child.forker = _greenlet()
    gate = getattr(vars(current).get("switch"), "__self__", None) if current is not None else None
    if isinstance(gate, _Gate):  # a thread of this package has forked, and it goes on in the child
        gate.pid = os.getpid()
    for function in [*_functions, *[part.after_fork for part in list(_parts)]]:
        try:
            function()
        except Exception:
            logger.exception("%s failed in a forked child", function)
    parents_sockets.clear()
    if current is not None:
        parents_sockets.update(_sockets())


def _sockets() -> Iterator[tuple[int, int]]:
    """Yields the descriptor and the inode of each open socket."""
    for name in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):  # the descriptor of the folder itself is closed by now
            status = os.fstat(int(name))
            if stat.S_ISSOCK(status.st_mode):
                yield int(name), status.st_ino


os.register_at_fork(after_in_child=_after_fork)
