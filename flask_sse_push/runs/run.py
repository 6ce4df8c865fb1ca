"""What `sse.start` returns: a run, as its starter sees it."""

from __future__ import annotations

from typing import NamedTuple

from ..errors import InvalidEvent, shown
from ..protocol.channel import checked_channel

#: The channel of a run is this prefix, followed by the key of the run.
PREFIX = "run:"


class Run(NamedTuple):
    """The result of `SSEBlueprint.start`: a run that was started, or that was already going on."""

    key: str  #: the key of the run, for `SSEBlueprint.stop`
    channel: str  #: the channel on which the events of the run are published
    cursor: str  #: a stream opened with this cursor gets the whole run; `earliest` if `started` is False
    started: bool  #: False if a run with this key was already going on; the new producer was then not used


def run_channel(key: str) -> str:
    """Returns the channel of the run with this key.

    :raises InvalidEvent: if the key is not a string that fits into a channel's name.
    """
    if not isinstance(key, str) or not key:
        raise InvalidEvent("key", f"is {shown(key)}, must be a string that fits into a channel's name")
    return checked_channel(PREFIX + key)
