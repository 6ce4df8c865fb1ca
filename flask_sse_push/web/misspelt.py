"""Finds misspelt parameters in requests for streams. Unknown parameters have no effect."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice

from ..errors import Refused
from .parameters import NAMES

#: How similar a name must be to a known one, from 0 to 1. At 0.6, `path` would be similar to `batch`.
_SIMILAR = 0.75
#: At most how many unknown names are compared, and how long they may be: comparing takes time.
_MOST, _LONGEST = 10, 20


def misspelt(names: Iterable[str]) -> str:
    """Returns a text about the first unknown parameter that is similar to a known one; "" if there is none.

    :param names: the names of the parameters of a request that names no channel.
    """
    for name in islice((name for name in names if name not in NAMES), _MOST):
        similar = get_close_matches(name.lower(), NAMES, 1, _SIMILAR) if len(name) <= _LONGEST else []
        if similar:
            return f"the request names no channel, but has {name!r}: did you mean {similar[0]!r}?"
    return ""


def explain(refused: Refused, names: Iterable[str]) -> None:
    """Adds the misspelt parameter to the message of a refusal, if the refusal is about a channel."""
    hint = misspelt(names) if "channel" in (refused.details or {}) else ""
    if hint:
        refused.message += f"; {hint}"
        refused.args = (refused.message,)
