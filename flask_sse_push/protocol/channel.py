"""Channel names, and the shard that a channel lies on."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable

from ..errors import InvalidEvent
from .event import _name_problem, _plain

#: Every stream listens to this channel too. Its name is outside the grammar of channel names.
BROADCAST = "*"


#: Shards that a cursor has room for.
MAX_SHARDS = 8


def shard_of(channel: str, count: int) -> int:
    """The shard of a channel among `count`. Channels that are the package's own lie on the first."""
    return 0 if count == 1 or channel.startswith("!") else zlib.crc32(channel.encode()) % count


#: How many channels one publish may name.
MAX_CHANNELS = 100


_CHANNEL = re.compile(r"[A-Za-z0-9_:./@-]{1,200}", re.ASCII)


def checked_channel(name: str) -> str:
    """`name`, when it is a channel name.

    :raises InvalidEvent: naming the first character that is not allowed.
    """
    if isinstance(name, str) and _CHANNEL.fullmatch(name):
        return _plain(name)
    raise InvalidEvent("channel", _name_problem(name, "A-Z a-z 0-9 _ : . / @ -", r"[A-Za-z0-9_:./@-]", 200))


def checked_channels(channel: str | Iterable[str]) -> tuple[str, ...]:
    """One name or several as a tuple without repeats, in the order given."""
    if not isinstance(channel, Iterable):
        raise InvalidEvent("channel", f"is {channel!r}, must be a name or several")
    names = (channel,) if isinstance(channel, str) else tuple(channel)
    if not 0 < len(names) <= MAX_CHANNELS:
        raise InvalidEvent("channel", f"{len(names)} names given, must be 1 to {MAX_CHANNELS}")
    return tuple(dict.fromkeys(checked_channel(name) for name in names))
