"""Reads the JSON bodies of requests."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from flask import Request

from ..protocol.data import parse_json
from .refusal import bad_request

#: At most how many bytes a body may have; the data of an event does not count. A body that may name many
#: channels may have more bytes.
MAX_BODY = 50_000
#: How many bytes the longest name of a channel takes in a body, with quotes and comma. In a form, three bytes
#: stand for one character, such as `%3A`.
IN_JSON, IN_FORM = 204, 606
#: How many bytes a body may have beside the names of channels.
BESIDE = 10_000


def size_limit(channels: int, longest: int) -> int:
    """Returns how many bytes a body may have that names at most this many channels.

    :param longest: how many bytes the longest name takes.
    """
    return max(MAX_BODY, BESIDE + longest * channels)


def read_body(request: Request, known: Collection[str], max_size: int = MAX_BODY) -> dict[str, Any]:
    """Returns the JSON object in the body of a request.

    :param known: the fields that the object may have.
    :param max_size: a body with more bytes than this is refused.
    :raises Refused: 400, if the body is not a JSON object with known fields; 413, if it is too large; 415, if
        the request does not declare its body as JSON.
    """
    if not request.is_json:
        raise bad_request("the body must be JSON, with the header Content-Type: application/json", 415)
    if request.content_length is None:
        raise bad_request("the request must have the header Content-Length")
    if request.content_length > max_size:
        message = f"the body has {request.content_length} bytes, at most {max_size} are allowed"
        raise bad_request(message, 413)
    try:
        body = parse_json(request.get_data(), "body")
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        raise bad_request("the body is not valid JSON") from None
    except ValueError as error:
        raise bad_request(f"the body is not valid JSON: {error}") from None
    if not isinstance(body, dict):
        raise bad_request("the body must be a JSON object")
    unknown = sorted(set(body) - set(known))
    if unknown:
        raise bad_request(f"unknown fields {', '.join(unknown)[:200]}; allowed are {', '.join(known)}")
    return body
