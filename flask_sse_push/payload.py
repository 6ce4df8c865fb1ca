"""Payload compression: packs the data of one event into an envelope, as gzip in base64.

The envelope is `{"compressed": true, "encoding": "gzip+base64", "data": "H4sI…"}`. The envelope contains the
text that the `data:` lines of the event would have without compression, with the mark of JSON (see
`protocol.data`). On the wire, the envelope has a mark of its own. A client unpacks only data with this mark,
and then reads the text as it reads any data. So JSON of a user that looks like an envelope stays as it is.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from typing import Any

from .errors import InvalidPayload
from .protocol.data import MARK, Dumps, Envelope, flask_dumps, json_text
from .protocol.event import Event, plain_line_ends

#: The value of `encoding` in an envelope.
ENCODING = "gzip+base64"
#: Text of at most this many bytes is not compressed: short text hardly shrinks, and base64 adds a third.
THRESHOLD = 1024
#: At most this many bytes of text fit into an envelope. Longer text is not packed, and is not unpacked.
MAX_TEXT = 10_000_000

_GZIP = zlib.MAX_WBITS | 16  # zlib's code for the gzip format with the largest window
# The JSON text before and after the base64. Fixed text, so the length of an envelope is known before packing.
_HEAD, _TAIL = f'{{"compressed": true, "encoding": "{ENCODING}", "data": "', '"}'


def compress(obj: Any, threshold: int = THRESHOLD, *, dumps: Dumps = flask_dumps) -> Any:
    """Returns an envelope with `obj` if the envelope is smaller as JSON, else `obj` itself.

    `decompress` restores `obj` in both cases, because an `obj` that looks like an envelope is always packed.
    If an app publishes the envelope itself as an event's data, PushClient unpacks it. If the app first writes
    the envelope as JSON and reads it again, or puts it into other data, the page must call `decompress`.

    :param threshold: an `obj` with at most this many bytes of JSON is returned as it is.
    :param dumps: writes `obj` as JSON. The default writes the types that Flask's `app.json.dumps` writes; if
        the app has a JSON provider of its own, pass its `app.json.dumps`.
    :raises TypeError, ValueError: if `obj` cannot be written as JSON.
    """
    packed = _packed(json_text(obj, dumps), MARK, threshold, always=is_envelope(obj))
    if packed is None:
        return obj
    return Envelope({"compressed": True, "encoding": ENCODING, "data": packed})


def compress_event(event: Event) -> Event:
    """Returns the event with its text in an envelope if the envelope is smaller, else `event` itself."""
    if event.is_packed:  # clients unpack only once
        return event
    packed = _packed(plain_line_ends(event.data), MARK if event.is_json else "")
    return (
        event if packed is None else event._replace(data=_HEAD + packed + _TAIL, is_json=True, is_packed=True)
    )


def is_envelope(obj: Any) -> bool:
    """Whether `obj` is an envelope: a dict with exactly the fields that `compress` writes."""
    return (
        isinstance(obj, dict)
        and obj.keys() == {"compressed", "encoding", "data"}
        and obj["compressed"] is True
        and obj["encoding"] == ENCODING
    )


def decompress(obj: Any, *, max_bytes: int = MAX_TEXT) -> Any:
    """Returns the value packed into the envelope `obj`. Returns any other `obj` as it is.

    :param max_bytes: at most this many bytes are unpacked, so that a small envelope cannot fill the memory.
    :raises InvalidPayload: if the envelope is broken, or its text is longer than `max_bytes`.
    """
    if not is_envelope(obj):
        return obj
    text = _unpacked(obj["data"], max_bytes)
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text  # the app published a string


def _packed(text: str, mark: str, threshold: int = THRESHOLD, *, always: bool = False) -> str | None:
    """Returns `text` and `mark` as base64 of gzip; None if an envelope with the base64 would not be smaller.

    `mark` does not count for `threshold`.
    """
    raw = text.encode()
    if len(raw) + len(mark) > MAX_TEXT or (len(raw) <= threshold and not always):
        return None
    deflate = zlib.compressobj(wbits=_GZIP)  # no time in the gzip header: equal texts give equal bytes
    packed = base64.b64encode(deflate.compress(raw + mark.encode()) + deflate.flush())
    if len(_HEAD) + len(packed) + len(_TAIL) >= len(raw) and not always:
        return None
    return packed.decode("ascii")


def _unpacked(packed: Any, max_bytes: int) -> str:
    if not isinstance(packed, str):
        raise InvalidPayload(f"its data is {type(packed).__name__}, must be a string of base64")
    inflate = zlib.decompressobj(wbits=_GZIP)
    try:
        raw = inflate.decompress(base64.b64decode(packed, validate=True), max_bytes + 1)
        if len(raw) > max_bytes:
            raise InvalidPayload(f"it holds more than {max_bytes} bytes")
        if not inflate.eof or inflate.unused_data:
            raise InvalidPayload("its gzip data ends too early or too late")
        return raw.decode()
    except (binascii.Error, zlib.error, ValueError) as error:
        if isinstance(error, InvalidPayload):
            raise
        raise InvalidPayload(f"its data cannot be read: {error}") from error
