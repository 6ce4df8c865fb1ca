"""Which pages of other origins may read the streams (Fetch standard, "CORS protocol")."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from ..errors import ErrorCode, Refused

if TYPE_CHECKING:
    from flask import Request

#: Seconds a browser remembers the answer to a preflight.
MAX_AGE = 600

#: What the fetch transport sends: a token, a cursor, JSON.
PREFLIGHT: Mapping[str, str] = {
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": "Authorization, Cache-Control, Content-Type, Last-Event-ID",
    "Access-Control-Max-Age": str(MAX_AGE),
}


def headers(origin: str | None, allowed: Collection[str], *, preflight: bool = False) -> dict[str, str]:
    """The headers that let a page of `origin` read the answer, cookies and all; none for any other.

    The origin is compared as a whole, and `*` is never sent: with credentials it would mean nothing.
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
    """Whether a page sent the request that is neither of the app's own host nor of an origin allowed.

    A proxy may have taken TLS off, so that the app does not know its own scheme: hosts are compared.

    :param host: that of the request, with its port.
    """
    return origin is not None and origin not in allowed and origin.partition("://")[2] != host


def check(request: Request, allowed: Collection[str]) -> None:
    """Lets pages of the app's own host and of the listed origins pass, and whoever is no page.

    :raises Refused: 403.
    """
    origin = request.headers.get("Origin")
    if origin is not None and is_foreign(origin, request.host, allowed):
        raise Refused(403, ErrorCode.PERMISSION_DENIED, "pages of this origin may not do this")
