"""The responses of the blueprint: an event stream, and a refusal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from flask import Response, jsonify
from werkzeug.datastructures import Headers

from ..errors import ErrorCode, Refused, error_body

#: No proxy may store, change or hold back the stream; nosniff keeps old browsers from guessing a type.
HEADERS: Mapping[str, str] = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache, no-store, no-transform, private",
    "X-Accel-Buffering": "no",
    "X-Content-Type-Options": "nosniff",
    "Vary": "Cookie",
}


#: The same where compression is on, for a client that does not accept it, and for one that does.
NEGOTIATED_HEADERS: Mapping[str, str] = {**HEADERS, "Vary": "Cookie, Accept-Encoding"}


GZIP_HEADERS: Mapping[str, str] = {**NEGOTIATED_HEADERS, "Content-Encoding": "gzip"}


PLAIN, NEGOTIATED, GZIP = (tuple(headers.items()) for headers in (HEADERS, NEGOTIATED_HEADERS, GZIP_HEADERS))


class StreamResponse(Response):
    """A response without a length or a location to work out: its headers go out as they are."""

    def get_wsgi_headers(self, environ: Mapping[str, Any]) -> Headers:
        return self.headers

    def iter_encoded(self) -> Iterator[bytes]:
        return self.response  # type: ignore[return-value]


def refusal(refused: Refused) -> Response:
    response = jsonify(error_body(refused.code, refused.message, refused.details))
    response.status_code = refused.status
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"  # it quotes what was asked for
    if refused.status == 401:
        failed = refused.code != ErrorCode.AUTH_REQUIRED
        response.headers["WWW-Authenticate"] = 'Bearer error="invalid_token"' if failed else "Bearer"
    if refused.retry_after is not None:
        response.headers["Retry-After"] = str(max(1, round(refused.retry_after)))
    return response
