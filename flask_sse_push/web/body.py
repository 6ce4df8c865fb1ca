"""Reads the JSON bodies of requests."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from flask import Request

from .refusal import bad_request

#: Most bytes of a body, without the data of an event.
MAX_BODY = 50_000


def read_body(request: Request, known: Collection[str], max_size: int = MAX_BODY) -> dict[str, Any]:
    """Returns the JSON object in the body of a request.

    :param known: the fields that it may have.
    :param max_size: most bytes of the body.
    :raises Refused: 400, 413 or 415.
    """
    if not request.is_json:
        raise bad_request("the body must be JSON, and Content-Type must say so: application/json", 415)
    if request.content_length is None:
        raise bad_request("the request must say its Content-Length")
    if request.content_length > max_size:
        message = f"the body has {request.content_length} bytes, at most {max_size} are allowed"
        raise bad_request(message, 413)
    try:
        body = json.loads(request.get_data())
    except (ValueError, RecursionError):
        raise bad_request("the body is no JSON") from None
    if not isinstance(body, dict):
        raise bad_request("the body must be a JSON object")
    unknown = sorted(set(body) - set(known))
    if unknown:
        raise bad_request(f"unknown fields {', '.join(unknown)[:200]}; known are {', '.join(known)}")
    return body
