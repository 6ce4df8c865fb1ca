"""The data of an event as text: a string stays as it is, any other value is written as JSON with a mark.

The mark is one TAB at the end of the text. JSON ignores white space at its ends, so clients that know nothing
of the mark read the same value. A client that knows the mark tells the number 42 from the string "42".

An envelope (see `payload`) has the mark twice. So a client never unpacks JSON that only looks like an
envelope.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flask.json.provider import DefaultJSONProvider

from ..errors import InvalidEvent
from .channel import plain_str

#: A function that writes data as JSON, such as `json.dumps`, or `orjson.dumps`, which returns bytes.
Dumps = Callable[[Any], str | bytes]

#: The mark at the end of data that the server wrote as JSON.
MARK = "\t"
#: The mark at the end of an envelope that this package has packed.
PACKED = MARK + MARK
#: At most this many characters of a place in the data are shown in an error message.
MAX_PLACE = 200


class Envelope(dict[str, Any]):
    """An envelope that `payload.compress` has packed. A plain dict with the same content is ordinary data."""


# One encoder for all calls, because json.dumps would make a new encoder for each call.
_encode = json.JSONEncoder(
    default=DefaultJSONProvider.default,
    ensure_ascii=DefaultJSONProvider.ensure_ascii,
    sort_keys=DefaultJSONProvider.sort_keys,
).encode
_CONSTANT_AS_KEY = re.compile(r'"(?:NaN|-?Infinity)"\s*:')


def flask_dumps(value: Any) -> str:
    """Writes `value` as the `app.json.dumps` of a Flask app does, unless the app has a JSON provider of its
    own: dates, UUIDs, decimals and dataclasses are allowed, and keys are sorted.

    :raises TypeError, ValueError: if `value` cannot be written as JSON.
    """
    return _encode(value)


def encoded(data: Any, dumps: Dumps) -> tuple[str, bool]:
    """Returns the text of `data`, and whether this text is JSON, which must be sent with the mark.

    A string is its own text. An object with a method `__html__`, such as `Markup`, stands for its HTML. But a
    string that looks like JSON with a mark is written as JSON too, because clients would take it for JSON.

    :raises InvalidEvent: if `data` is bytes, or cannot be written as JSON.
    """
    if hasattr(data, "__html__"):
        data = data.__html__()
    if isinstance(data, str):
        if data[-1:] == MARK and _is_json(data):
            return json.dumps(data, ensure_ascii=False), True
        return plain_str(data), False
    if isinstance(data, (bytes, bytearray, memoryview)):
        raise InvalidEvent("data", "is bytes; decode it, or encode it as base64 text")
    try:
        return json_text(data, dumps), True
    except InvalidEvent:
        raise
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidEvent("data", f"cannot be written as JSON: {error}") from error


def unmarked(text: str) -> tuple[str, bool]:
    """Returns the data of a received event without its marks, and whether the data had a mark."""
    return (text.rstrip(MARK), True) if text[-1:] == MARK and _is_json(text) else (text, False)


def _is_json(text: str) -> bool:
    """Whether a browser may be able to parse `text` as JSON."""
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return False
    except (ValueError, RecursionError):  # too long a number or too deep for Python, but not for a browser
        return True
    return True


def json_text(value: Any, dumps: Dumps) -> str:
    """Writes `value` with `dumps` and returns the text.

    :raises InvalidEvent: if the text has NaN or an infinite number, which JSON does not have; the message
        names the place in `value`. Exceptions of `dumps` are not caught.
    """
    text: Any = dumps(value)
    if isinstance(text, (bytes, bytearray)):
        text = text.decode()
    elif not isinstance(text, str):
        raise InvalidEvent("data", f"was written as {type(text).__name__}; dumps must return str or bytes")
    if text[-1:] == MARK:  # the client would take it for a mark
        text = text.rstrip()
    if "NaN" in text or "Infinity" in text:  # both words may also be part of a string
        _refuse_constants(text, value)
    return text if text.__class__ is str else plain_str(text)


def _refuse_constants(text: str, value: Any) -> None:
    try:
        parse_json(text, "data")
    except json.JSONDecodeError as error:
        raise InvalidEvent("data", f"was written as text that is not JSON: {error}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidEvent("data", f"{error}; publish None or a string instead") from error
    if _CONSTANT_AS_KEY.search(text):
        place = _find(value, "data", _has_constant_as_key)
        if place is not None:
            problem = f"{place} has NaN or an infinite number as a key, which JSON does not have"
            raise InvalidEvent("data", f"{problem}; publish a string instead")


def parse_json(text: str | bytes, name: str) -> Any:
    """Parses JSON as browsers do. Python's `json.loads` would also accept NaN, Infinity and -Infinity.

    :param name: how error messages call the parsed value.
    :raises ValueError: if `text` is not JSON. If it has NaN or Infinity, the message names their place, such
        as `data["prices"][3] is NaN, which JSON does not have`.
    :raises RecursionError: if `text` is nested too deeply.
    """
    constants: list[_Constant] = []

    def note(word: str) -> _Constant:
        constants.append(_Constant(word))
        return constants[-1]

    value = json.loads(text, parse_constant=note)
    if constants:
        place = _find(value, name, lambda each: each is constants[0]) or name
        raise ValueError(f"{place} is {constants[0]}, which JSON does not have")
    return value


class _Constant(str):
    """A word that Python's json accepts in place of a number: NaN, Infinity or -Infinity."""


def _find(value: Any, name: str, wanted: Callable[[Any], bool]) -> str | None:
    """Returns the place of the first part of `value` for which `wanted` is true; None if there is no such
    part. The place reads as Python code: `data["prices"][3]`."""
    # Parts, each with the way to it: the way to the part around it, and one step more.
    waiting: list[tuple[Any, Any]] = [(value, None)]
    while waiting:
        part, way = waiting.pop()
        if wanted(part):
            return name + _steps(way)
        waiting += [(inner, (way, step)) for step, inner in reversed(list(_parts(part)))]
    return None


def _steps(way: Any) -> str:
    steps = []
    while way is not None:
        way, step = way
        steps.append(f"[{json.dumps(step, default=str)}]")
    text = "".join(reversed(steps))
    return text if len(text) <= MAX_PLACE else text[:MAX_PLACE] + "…"


def _parts(value: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        return value.items()
    if dataclasses.is_dataclass(value):
        return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    return enumerate(value) if isinstance(value, (list, tuple)) else ()


def _has_constant_as_key(value: Any) -> bool:
    return isinstance(value, Mapping) and any(
        isinstance(key, float) and not math.isfinite(key) for key in value
    )
