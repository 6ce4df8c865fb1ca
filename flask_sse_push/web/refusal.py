"""Makes the errors and the responses for requests that are refused."""

from __future__ import annotations

from typing import Any

from flask import Response, jsonify

from ..errors import ErrorCode, Refused, error_body


def bad_request(message: str, status: int = 400, **details: Any) -> Refused:
    """Returns the error for a request that is not valid, with the code INVALID_FORMAT. Does not raise it."""
    return Refused(status, ErrorCode.INVALID_FORMAT, message, details=details or None)


def refusal(refused: Refused) -> Response:
    """Returns the JSON response for a refused request."""
    response = jsonify(error_body(refused.code, refused.message, refused.details))
    response.status_code = refused.status
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"  # the message may quote parts of the request
    if refused.status == 401:
        has_bad_token = refused.code != ErrorCode.AUTH_REQUIRED
        response.headers["WWW-Authenticate"] = 'Bearer error="invalid_token"' if has_bad_token else "Bearer"
    if refused.retry_after is not None:
        response.headers["Retry-After"] = str(max(1, round(refused.retry_after)))
    return response
