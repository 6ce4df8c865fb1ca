"""The neutral form: dictionaries for what a model's answer has besides text, such as tool calls.

A producer may yield them. Clients of the run get each as a `run.item` event, and `formats` writes them as the
front ends expect. A dictionary with another `type`, or without one, is an ordinary item.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping
from typing import Any

from ..errors import InvalidEvent, shown

logger = logging.getLogger(__name__)

#: For each `type`, the fields that an item must have, with their classes. `object` means any JSON.
FIELDS: Mapping[str, dict[str, type]] = {
    "reasoning": {"text": str},
    "tool_call": {"id": str, "name": str, "input": object},
    "tool_result": {"id": str},
    "source": {"url": str},
    "file": {"url": str, "media_type": str},
    "data": {"name": str, "data": object},
}
#: The fields that an item may have besides.
OPTIONAL: Mapping[str, dict[str, type]] = {
    "tool_result": {"output": object, "error": str},
    "source": {"title": str},
    "data": {"id": str},
}


#: The unknown types that the log has named. At most this many are named.
_named: set[str] = set()
MAX_NAMED = 20


class Reasoning(str):
    """A piece of a model's reasoning. Pieces in a row are joined, as pieces of text are."""

    __slots__ = ()


def kind_of(item: Any) -> str | None:
    """Returns the `type` of an item in the neutral form; None for any other item."""
    kind = item.get("type") if isinstance(item, Mapping) else None
    return kind if isinstance(kind, str) and kind in FIELDS else None


def problem(item: Any) -> str | None:
    """Returns what is wrong with an item in the neutral form; None if nothing is, or for any other item."""
    kind = kind_of(item)
    if kind is None:
        return None
    optional = OPTIONAL.get(kind, {})
    for name, expected in (FIELDS[kind] | optional).items():
        if name not in item or (name in optional and item[name] is None):
            if name in FIELDS[kind]:
                return f"has the type {kind!r}, but no {name!r}"
        elif not isinstance(item[name], expected):
            return f"has the type {kind!r}, and its {name!r} is {shown(item[name])}, must be text"
    if kind == "tool_result" and ("output" in item) == ("error" in item):
        return "has the type 'tool_result', and must have either 'output' or 'error'"
    return "has the type 'data', but its 'name' is empty" if kind == "data" and not item["name"] else None


def note_left_out(item: Any) -> None:
    """Logs a WARNING, once for each type, if no format knows the type of an item."""
    kind = item.get("type") if isinstance(item, Mapping) else None
    if not isinstance(kind, str) or kind in FIELDS or kind in _named or len(_named) >= MAX_NAMED:
        return
    _named.add(kind)
    near = difflib.get_close_matches(kind[:100], FIELDS, 1)
    logger.warning(
        "a run has an item with the type %s, which no format knows: front ends do not get the item. %s",
        shown(kind), f"Did you mean {near[0]!r}?" if near else f"The types are {', '.join(FIELDS)}.",
        extra={"event": "item_left_out"},
    )  # fmt: skip


def check(item: Any) -> None:
    """Checks an item that a producer has yielded.

    :raises InvalidEvent: if the item is in the neutral form, but a field is missing or has the wrong class.
    """
    found = problem(item)
    if found is not None:
        raise InvalidEvent("item", found)


def reasoning_of(item: Any) -> Reasoning | None:
    """Returns the text of an item with nothing but reasoning; None for any other item."""
    if kind_of(item) == "reasoning" and len(item) == 2 and isinstance(item["text"], str):
        return Reasoning(item["text"])
    return None
