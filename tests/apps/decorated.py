"""An app that adds headers and a cookie to every response, also to streams."""

from __future__ import annotations

from flask import Response

from tests.apps.plain import app


@app.after_request
def decorate(response: Response) -> Response:
    response.headers["X-App"] = "shop"
    response.set_cookie("seen", "yes")
    return response
