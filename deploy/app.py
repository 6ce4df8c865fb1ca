"""The app that the other files here run. Replace it with your own, and keep what is marked "Needed"."""

from __future__ import annotations

import hmac
import os
from typing import Any

from flask import Flask, request
from werkzeug.middleware.proxy_fix import ProxyFix

from flask_sse_push import sse

app = Flask(__name__)
# Needed: one key for all workers and machines. Otherwise a session made by one is not valid at another.
app.config["SECRET_KEY"] = os.environ["SECRET_KEY"]
app.config["SSE_PUSH_PUBLIC_CHANNELS"] = ("news",)
# Needed behind one proxy that sets these headers: they give the visitor's address and scheme.
app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_host=1)  # type: ignore[method-assign]
app.register_blueprint(sse, url_prefix="/stream")


# Needed: gives ready.py access to /stream/health, and Prometheus access to /stream/metrics.
@sse.authorize_admin
def is_operator(user: Any) -> bool:
    """Returns whether the request carries the operators' token."""
    given = request.headers.get("Authorization", "")
    return hmac.compare_digest(given.encode(), f"Bearer {os.environ['OPERATOR_TOKEN']}".encode())


@app.get("/")
def page() -> dict[str, str | None]:
    """Shows what the app knows about the visitor."""
    return {"address": request.remote_addr, "scheme": request.scheme, "host": request.host}
