"""Answers errors: a page in the look of the app for a browser that opens an address, JSON for a script."""

from __future__ import annotations

from typing import Any

from flask import Flask, jsonify, render_template, request
from werkzeug.exceptions import HTTPException

from flask_sse_push import BrokerUnavailable, InvalidEvent

from .signin import may_open

TITLES = {
    403: "Not for this user",
    404: "Nothing here",
    503: "The broker does not answer",
}


def handle(app: Flask) -> None:
    """Lets this module answer the errors of all views."""
    app.register_error_handler(HTTPException, _failed)
    app.register_error_handler(InvalidEvent, lambda error: _answer(400, str(error)))
    app.register_error_handler(BrokerUnavailable, lambda error: _answer(503, str(error)))


def _failed(error: HTTPException) -> Any:
    if error.response is not None:  # such as a redirect
        return error.response
    return _answer(error.code or 500, error.description or error.name)


def _answer(status: int, text: str) -> Any:
    """Returns a page or `{"error": "…"}`. A script asks for any type; a browser prefers HTML."""
    if request.accept_mimetypes.best_match(("application/json", "text/html")) == "application/json":
        return jsonify(error=text), status
    title = TITLES.get(status, "That did not work")
    others = may_open(request.path) if status == 403 else []
    return render_template("error.html", status=status, title=title, text=text, others=others), status
