"""Channel names and what is wrong with them, and the shard that a channel lies on."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable

from ..errors import InvalidEvent

#: The channel of broadcasts: every stream listens to it too. Its name is outside the grammar of names.
BROADCAST = "*"
#: How many channels one publish may name.
MAX_CHANNELS = 100
#: The most shards: a cursor has room for this many positions.
MAX_SHARDS = 8

_CHANNEL = re.compile(r"[A-Za-z0-9_:./@-]{1,200}", re.ASCII)


def shard_of(channel: str, count: int) -> int:
    """The number of the shard, of `count`, that holds a channel. Shard 0 holds the package's own channels."""
    return 0 if count == 1 or channel.startswith("!") else zlib.crc32(channel.encode()) % count


def checked_channel(name: str) -> str:
    """Returns `name` if it is a channel name.

    :raises InvalidEvent: naming the first character that is not allowed.
    """
    if isinstance(name, str) and _CHANNEL.fullmatch(name):
        return plain_str(name)
    raise InvalidEvent("channel", name_problem(name, "A-Z a-z 0-9 _ : . / @ -", r"[A-Za-z0-9_:./@-]", 200))


def checked_channels(channel: str | Iterable[str]) -> tuple[str, ...]:
    """One channel name or several, as a tuple without repeats, in the order given.

    :raises InvalidEvent: for no names, too many, or one that is not a channel name.
    """
    if type(channel) is str and _CHANNEL.fullmatch(channel):
        return (channel,)
    if not isinstance(channel, Iterable):
        raise InvalidEvent("channel", f"is {channel!r}, must be a name or several")
    names = (channel,) if isinstance(channel, str) else tuple(channel)
    if not 0 < len(names) <= MAX_CHANNELS:
        raise InvalidEvent("channel", f"{len(names)} names given, must be 1 to {MAX_CHANNELS}")
    return tuple(dict.fromkeys(map(checked_channel, names)))


def plain_str(text: str) -> str:
    """`text` as an exact `str`: an f-string would write the name of a member of a string enum."""
    return str.__str__(text)


def name_problem(name: object, allowed: str, character: str, longest: int) -> str:
    """What is wrong with a name that its grammar refused, as the rest of a sentence.

    :param allowed: the allowed characters, for people.
    :param character: a pattern that matches one allowed character.
    """
    if not isinstance(name, str):
        return f"is {name!r}, must be a string"
    for at, found in enumerate(name[: longest + 1]):
        if not re.fullmatch(character, found, re.ASCII):
            return f"has the forbidden character {code_point(found)} at {at}; allowed are {allowed}"
    return f"has {len(name)} characters, must have 1 to {longest}"


def code_point(character: str) -> str:
    """The character in an error message, such as U+000A."""
    return f"U+{ord(character):04X}"
