"""Checks channel names, and computes the shard that a channel lies on."""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Iterable
from itertools import filterfalse
from typing import Any

from ..errors import InvalidEvent, shown

#: The channel of broadcasts, to which every stream listens. Apps cannot use this name: `*` is not allowed in
#: channel names.
BROADCAST = "*"
#: At most this many channels in one call of `publish`.
MAX_CHANNELS = 100
#: At most this many shards: a cursor has room for this many positions.
MAX_SHARDS = 8

_FORBIDDEN = re.compile(r"[^A-Za-z0-9_:./@-]+", re.ASCII)
_CHANNEL = re.compile(r"[A-Za-z0-9_:./@-]{1,200}", re.ASCII)


def shard_of(channel: str, count: int) -> int:
    """Returns the number of the shard that a channel lies on. `count` is how many shards there are.

    The package's own channels begin with `!` and lie on shard 0.
    """
    return 0 if count == 1 or channel.startswith("!") else zlib.crc32(channel.encode()) % count


def is_channel(name: str) -> bool:
    """Whether `name` is a valid channel name."""
    return _CHANNEL.fullmatch(name) is not None


def checked_channel(name: str | int, field: str = "channel", at: int | None = None) -> str:
    """Returns `name` if it is a valid channel name. A whole number becomes text.

    :param field: the argument that has the name, for the error message.
    :param at: the place of the name in the argument, if the argument has several names.
    :raises InvalidEvent: if `name` is not valid; the message names the first forbidden character, and a name
        that would be valid.
    """
    name = with_number_as_text(name)
    if isinstance(name, str) and _CHANNEL.fullmatch(name):
        return plain_str(name)
    problem = channel_problem(name)
    if isinstance(name, str) and 0 < len(name) <= 200:
        base = "".join(filterfalse(unicodedata.combining, unicodedata.normalize("NFKD", name)))
        problem += f"; {_FORBIDDEN.sub('-', base)[:200]!r} would do"
    raise InvalidEvent(field, problem, at)


def channel_problem(name: object, longest: int = 200) -> str:
    """Returns what is wrong with a name that is no valid channel name, or no valid part of one.

    :param longest: how many characters the name may have.
    """
    return name_problem(name, "A-Z a-z 0-9 _ : . / @ -", r"[A-Za-z0-9_:./@-]", longest)


def checked_channels(
    channel: str | int | Iterable[str | int], most: int = MAX_CHANNELS, field: str = "channel"
) -> tuple[str, ...]:
    """Returns one channel name or several as a tuple, in their order and without repeats.

    :param most: at most this many names may be given.
    :param field: the argument that has the names, for the error message.
    :raises InvalidEvent: if there is no name, if there are too many names, or if a name is not valid; the
        message says which one.
    """
    if type(channel) is str and _CHANNEL.fullmatch(channel):
        return (channel,)
    channel = with_number_as_text(channel)
    if not isinstance(channel, Iterable) or isinstance(channel, (bytes, bytearray)):
        raise InvalidEvent(field, f"is {shown(channel)}, must be a name or several")
    if isinstance(channel, str):
        return (checked_channel(channel, field),)
    names = tuple(channel)
    if not 0 < len(names) <= most:
        raise InvalidEvent(field, f"{len(names)} names given, must be 1 to {most}")
    return tuple(dict.fromkeys(checked_channel(name, field, at) for at, name in enumerate(names)))


def with_number_as_text(value: Any) -> Any:
    """Returns a whole number as text, as the package Flask-SSE does. Returns any other value as it is."""
    is_number = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**100
    return str(int(value)) if is_number else value


def plain_str(text: str) -> str:
    """Returns `text` as a plain `str`. An f-string could show a string enum's member as its name."""
    return str.__str__(text)


def name_problem(name: object, allowed: str, character: str, longest: int) -> str:
    """Returns what is wrong with a name that is not valid, such as "has 300 characters, must have 1 to 200".

    :param allowed: the allowed characters, as the error message shows them.
    :param character: a pattern that matches one allowed character.
    :param longest: how many characters a name may have.
    """
    if not isinstance(name, str):
        return f"is {shown(name)}, must be a string"
    for at, found in enumerate(name[: longest + 1]):
        if not re.fullmatch(character, found, re.ASCII):
            return f"has the forbidden character {code_point(found)} at {at}; allowed are {allowed}"
    return f"has {len(name)} characters, must have 1 to {longest}"


def code_point(character: str) -> str:
    """Returns the code point of a character for an error message, such as U+000A."""
    return f"U+{ord(character):04X}"
