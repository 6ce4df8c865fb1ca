"""Which pages of other origins may read the responses (Fetch standard, "CORS protocol")."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from ..errors import ErrorCode, Refused

if TYPE_CHECKING:
    from flask import Request

#: Seconds for which a browser remembers the response to a preflight.
MAX_AGE = 600

#: Allows what the fetch transport of `PushClient` sends: a token, a cursor, JSON.
PREFLIGHT: Mapping[str, str] = {
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": "Authorization, Cache-Control, Content-Type, Last-Event-ID",
    "Access-Control-Max-Age": str(MAX_AGE),
}


def headers(origin: str | None, allowed: Collection[str], *, preflight: bool = False) -> dict[str, str]:
    """Returns the headers that let a page of `origin` read the response and send cookies. Returns none for an
    origin that is not allowed.

    The whole origin must match. `*` is never sent, because browsers ignore it for requests with cookies.
    """
    if origin is None or origin not in allowed:
        return {}
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Credentials": "true",
        "Access-Control-Expose-Headers": "Retry-After",
        **(PREFLIGHT if preflight else {}),
    }


def is_foreign(origin: str | None, host: str, allowed: Collection[str]) -> bool:
    """Whether a page of another host sent the request, and its origin is not allowed.

    Only hosts are compared: behind a proxy that ends TLS, the app does not know its own scheme.

    :param host: the host of the request, with its port.
    """
    return origin is not None and origin not in allowed and origin.partition("://")[2] != host


def check(request: Request, allowed: Collection[str]) -> None:
    """Returns if the request comes from the app's own pages, from an allowed origin, or from no page at all.

    :raises Refused: 403.
    """
    origin = request.headers.get("Origin")
    if origin is not None and is_foreign(origin, request.host, allowed):
        raise Refused(403, ErrorCode.PERMISSION_DENIED, "pages of this origin may not do this")
