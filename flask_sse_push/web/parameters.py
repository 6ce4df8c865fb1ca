"""Reads the parameters of a `POST` request for a stream: from its body and from its query.

A request line has little room: gunicorn refuses a URL of more than about 4,000 characters. A body has room
for as many channels as a stream may have.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import BytesIO
from typing import IO, Any, cast
from urllib.parse import parse_qsl

from flask import Request, g
from werkzeug.datastructures import CombinedMultiDict, MultiDict
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.wsgi import LimitedStream

from ..auth import tickets
from ..errors import Refused
from .body import IN_FORM, size_limit
from .refusal import bad_request

#: Name of the attribute of `flask.g` with the parameters in the body, or with the refusal of the body.
_FOUND = "_sse_push_parameters"

JSON, FORM = "application/json", "application/x-www-form-urlencoded"
_TYPES = f"a body must be declared as {JSON} or as {FORM}, in the header Content-Type"

#: The parameters whose value may be a list in JSON.
_LISTS = frozenset({"channels", "channel"})
#: The parameters whose value must be text in JSON.
_TEXTS = frozenset({"last_event_id", "lastEventId", "ticket", "events"})
#: The parameters whose value may be a number in JSON, or text.
_NUMBERS = frozenset({"last", "batch", "poll"})
#: The parameter whose value may be true or false in JSON. It may also be the text that a query has.
_FLAG = "tagged"
#: The names of all parameters.
NAMES = (*_LISTS, *_TEXTS, *_NUMBERS, _FLAG)


def take_body(request: Request, max_channels: int) -> None:
    """Reads the body of a request, and keeps the parameters for `parameters_of`.

    Call this function before any function of the app can read the body. If the body has a ticket, later
    readers of the body see `***` instead of the ticket.

    :param max_channels: the body may be long enough for this many channels.
    """
    found: MultiDict[str, str] | Refused
    try:
        found = _read(request, size_limit(max_channels, IN_FORM))
    except Refused as refused:  # `parameters_of` raises it, when the attempt to connect has been counted
        found = refused
    setattr(g, _FOUND, found)


def parameters_of(request: Request) -> MultiDict[str, str]:
    """Returns the parameters in the body and in the query of a request, for which `take_body` was called.

    If a parameter may be given only once and both have it, the value in the body is the first one.

    :raises Refused: 400, 411, 413 or 415, if the body is not valid.
    """
    found: MultiDict[str, str] | Refused = getattr(g, _FOUND)
    if isinstance(found, Refused):
        raise found
    return CombinedMultiDict([found, request.args])


def _read(request: Request, max_size: int) -> MultiDict[str, str]:
    raw = _data(request, max_size)
    if request.mimetype == FORM:
        pairs = parse_qsl(raw.decode("utf-8", "replace"), keep_blank_values=True)
        # If a function of the app has read the form before, the body is empty, and Flask has kept the form.
        found = MultiDict(pairs) if raw else request.form.copy()
        shown = tickets.redacted_query(raw.decode("latin-1")).encode("latin-1")
    elif request.is_json:
        body = _json_object(raw)
        found = MultiDict(_pairs(body))
        shown = json.dumps({**body, tickets.PARAMETER: "***"}).encode() if tickets.PARAMETER in body else raw
    elif raw:
        raise bad_request(_TYPES, 415)
    else:
        return MultiDict()
    request.stream = BytesIO(shown)  # for functions of the app that read the body later
    if "lastEventId" in found:  # the body's cursor counts before a cursor in the query
        found.setdefault("last_event_id", found["lastEventId"])
    return found


def _data(request: Request, max_size: int) -> bytes:
    """Returns the whole body. The server must have no bytes of it left when a stream takes the connection."""
    if (request.content_length or 0) <= max_size:
        raw = _received(request, max_size + 1)
        if len(raw) <= max_size:
            return raw
    raise bad_request(f"the body has more than the {max_size} bytes that are allowed", 413)


def _received(request: Request, longest: int) -> bytes:
    """Returns the body of a request; of a chunked body at most `longest` bytes."""
    environ, is_chunked = request.environ, request.content_length is None
    if is_chunked and "HTTP_TRANSFER_ENCODING" in environ and not environ.get("wsgi.input_terminated"):
        raise bad_request("this server reads no chunked bodies: send the header Content-Length", 411)
    try:
        if is_chunked:
            request.stream = cast("IO[bytes]", LimitedStream(request.stream, longest, is_max=True))
        return request.get_data(cache=False)
    except RequestEntityTooLarge as error:
        raise bad_request(f"MAX_CONTENT_LENGTH allows {request.max_content_length} bytes", 413) from error
    except Exception as error:  # each server has exceptions of its own
        raise bad_request("the body is not complete, or its chunks are not valid") from error


def _json_object(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw, object_pairs_hook=_object)
    except (ValueError, RecursionError):
        raise bad_request("the body is not valid JSON") from None
    if not isinstance(body, dict):
        raise bad_request("the body must be a JSON object")
    return body


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    body: dict[str, Any] = {}
    for name, value in pairs:
        if name in body:
            raise bad_request(f"the body gives {name[:40]!r} more than once")
        body[name] = value
    return body


def _pairs(body: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields the parameters as they would stand in a query. Skips values that are null.

    An unknown parameter gets the value "": only its name is used.

    :raises Refused: 400, if a value has the wrong type; the message names the parameter.
    """
    for name, value in body.items():
        if value is None:
            continue
        if name in _LISTS:
            yield from _channels(name, value)
        elif name in _TEXTS:
            if not isinstance(value, str):
                raise bad_request(f"{name} is {_shown(value)}, must be text")
            yield name, value
        elif name in _NUMBERS:
            kind = "number" if name == "poll" else "whole number"
            if type(value) not in ((int, float, str) if name == "poll" else (int, str)):
                raise bad_request(f"{name} is {_shown(value)}, must be a {kind}")
            yield name, str(value)
        elif name == _FLAG:
            if not isinstance(value, (int, str)):
                raise bad_request(f"{name} is {_shown(value)}, must be true or false")
            yield name, "1" if value in (True, "1") else "0"
        else:
            yield name, ""  # an unknown parameter has no effect, but its name may be a mistake


def _channels(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, list) and all(isinstance(item, str) for item in value):
        yield from (("channel", item) for item in value)
    else:
        raise bad_request(f"{name} is {_shown(value)}, must be a list of names or text")


def _shown(value: Any) -> str:
    return json.dumps(value)[:40]
