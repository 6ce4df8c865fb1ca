"""Joining missed events into fewer ones, such as the pieces of a text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from ..protocol.entry import Entry


class Joining(NamedTuple):
    """How missed events of some channels are joined into fewer ones. Live events are never joined.

    A joined event has the position of its last event.
    """

    prefix: str  # the names of the channels begin with this text
    #: Gets missed entries in the order of their ids, and a position. Yields entries in the same order. Joins
    #: no entry up to the position with a later entry.
    join: Callable[[Iterable[Entry], int], Iterator[Entry]]

    def concerns(self, channels: Iterable[str]) -> bool:
        """Whether a stream of these channels may get joined events."""
        return any(name.startswith(self.prefix) for name in channels)
