"""Protects every page: sets a content security policy, and refuses writes that come from other sites."""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import Flask, Response, abort, request

#: Allows only files from the app itself and no inline code, so text that got into a page cannot run as a
#: script.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)

READS = ("GET", "HEAD", "OPTIONS")


def protect(app: Flask) -> None:
    """Adds the security headers to all responses, and refuses writes from other origins."""
    app.before_request(refuse_other_origins)
    app.after_request(add_headers)


def refuse_other_origins() -> None:
    """Answers 403 to a write that another site made the browser send with this site's cookies."""
    if request.method in READS:
        return
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != request.host:
        abort(403, "this form was sent from another site")
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        abort(403, "this form was sent from another site")


def add_headers(response: Response) -> Response:
    """Adds the headers by which browsers apply the rules."""
    response.headers.setdefault("Content-Security-Policy", POLICY)
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Referrer-Policy", "same-origin")
    return response
