"""The responses of the blueprint: an event stream, or a refusal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from flask import Response, jsonify
from werkzeug.datastructures import Headers

from ..errors import ErrorCode, Refused, error_body

#: No proxy may store, change or hold back the stream; `nosniff` keeps old browsers from guessing a type.
HEADERS: Mapping[str, str] = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache, no-store, no-transform, private",
    "X-Accel-Buffering": "no",
    "X-Content-Type-Options": "nosniff",
    "Vary": "Cookie",
}
#: With compression switched on: for a client that does not accept gzip, and for one that does.
NEGOTIATED_HEADERS: Mapping[str, str] = {**HEADERS, "Vary": "Cookie, Accept-Encoding"}
GZIP_HEADERS: Mapping[str, str] = {**NEGOTIATED_HEADERS, "Content-Encoding": "gzip"}

#: The same as pairs, as `werkzeug.Headers` keeps them.
PLAIN, NEGOTIATED, GZIP = (tuple(headers.items()) for headers in (HEADERS, NEGOTIATED_HEADERS, GZIP_HEADERS))


class StreamResponse(Response):
    """A response with neither a length nor a location to compute: its headers go out as they are."""

    def get_wsgi_headers(self, environ: Mapping[str, Any]) -> Headers:
        return self.headers

    def iter_encoded(self) -> Iterator[bytes]:
        return self.response  # type: ignore[return-value]


def bad_request(message: str, status: int = 400, **details: Any) -> Refused:
    """Returns the refusal of a request that makes no sense, with the error INVALID_FORMAT."""
    return Refused(status, ErrorCode.INVALID_FORMAT, message, details=details or None)


def refusal(refused: Refused) -> Response:
    """Returns the JSON response for a refused request."""
    response = jsonify(error_body(refused.code, refused.message, refused.details))
    response.status_code = refused.status
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"  # the message may quote the request
    if refused.status == 401:
        has_bad_token = refused.code != ErrorCode.AUTH_REQUIRED
        response.headers["WWW-Authenticate"] = 'Bearer error="invalid_token"' if has_bad_token else "Bearer"
    if refused.retry_after is not None:
        response.headers["Retry-After"] = str(max(1, round(refused.retry_after)))
    return response
