"""Decides which pages of other origins may read the responses (CORS, as the Fetch standard defines it)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from ..errors import ErrorCode, Refused

if TYPE_CHECKING:
    from flask import Request

#: Values of the header `Sec-Fetch-Site` (W3C Fetch Metadata). With the first value, the page has the same
#: origin as the URL, even if a proxy has changed the header `Host`. With the second value, no page sent the
#: request. Scripts cannot set this header, and browsers send it only over HTTPS and to localhost.
OWN_SITES = frozenset({"same-origin", "none"})

#: At most this many characters of an origin or a host are quoted in a message.
MAX_SHOWN = 200

ADVICE = (
    "to allow them, list the origin in SSE_PUSH_CORS_ORIGINS. If it is your own page, a proxy has changed "
    "the header Host: let the proxy pass on the Host that the browser sent"
)
NULL_ADVICE = (
    "a file and a sandboxed frame have this origin. It cannot be allowed: serve the page over HTTP, and list "
    "its origin in SSE_PUSH_CORS_ORIGINS"
)
#: What a refused request to the admin page or its stream says instead: no setting allows another origin.
OWN_ADVICE = (
    "only the app's own pages may, also if SSE_PUSH_CORS_ORIGINS lists the origin. If it is your own page, a "
    "proxy has changed the header Host: let the proxy pass on the Host that the browser sent"
)

#: How long a browser may remember the response to a preflight request, in seconds.
MAX_AGE = 600

#: Headers of the response to a preflight request. They allow the requests that `PushClient` sends with fetch:
#: with a token, with a cursor, or with a JSON body.
PREFLIGHT: Mapping[str, str] = {
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": "Authorization, Cache-Control, Content-Type, Last-Event-ID",
    "Access-Control-Max-Age": str(MAX_AGE),
}


def headers(origin: str | None, allowed: Collection[str], *, preflight: bool = False) -> dict[str, str]:
    """Returns the headers that allow a page of `origin` to read the response and to send cookies.

    Returns no headers if `origin` is not one of `allowed`. The headers never contain `*` instead of an
    origin, because browsers ignore `*` for requests with cookies.

    :param preflight: whether the request is a preflight request; the response then needs more headers.
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
    """Returns whether a page of another host sent the request, and the origin of this page is not allowed.

    Compares only hosts, not `http` and `https`, because an app behind a proxy that ends TLS does not know
    which of the two the browser uses.

    :param host: the host that the request was sent to, with its port.
    """
    if origin is None or origin in allowed:
        return False
    return origin.partition("://")[2].lower() != host.lower()


def check_origin(request: Request, allowed: Collection[str]) -> None:
    """Checks that the request comes from a page of the app, from an allowed origin, or from no page.

    :raises Refused: 403, if the request comes from any other page.
    """
    origin = request.environ.get("HTTP_ORIGIN")
    if origin is None or request.environ.get("HTTP_SEC_FETCH_SITE") in OWN_SITES:
        return
    if is_foreign(origin, request.host, allowed):
        advice = NULL_ADVICE if origin == "null" else ADVICE
        raise _refusal(origin[:MAX_SHOWN], request.host[:MAX_SHOWN], advice)


def check_own_page(request: Request) -> None:
    """Checks that a page of this very origin sent the request, or no page, whatever the settings allow.

    :raises Refused: 403, if a page of another site or origin sent the request.
    """
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None and site not in OWN_SITES:
        message = f"a page of another site sent this request (Sec-Fetch-Site is {site[:40]!r}); {OWN_ADVICE}"
        raise Refused(403, ErrorCode.PERMISSION_DENIED, message)
    origin = request.headers.get("Origin")
    if site is None and is_foreign(origin, request.host, ()):
        raise _refusal(str(origin)[:MAX_SHOWN], request.host[:MAX_SHOWN], OWN_ADVICE)


def _refusal(origin: str, host: str, advice: str) -> Refused:
    message = f"pages of the origin {origin!r} may not send this request to {host!r}; {advice}"
    return Refused(403, ErrorCode.PERMISSION_DENIED, message, details={"origin": origin})
