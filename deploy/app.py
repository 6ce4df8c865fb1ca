"""The app that the files beside it run. Put your own in its place; what they need of it is marked."""

from __future__ import annotations

import hmac
import os
from typing import Any

from flask import Flask, request
from werkzeug.middleware.proxy_fix import ProxyFix

from flask_sse_push import sse

app = Flask(__name__)
# Needed: one key for all workers and machines, or a session of one is none at the next.
app.config["SECRET_KEY"] = os.environ["SECRET_KEY"]
app.config["SSE_PUSH_PUBLIC_CHANNELS"] = ("news",)
# Needed: behind one proxy that sets these headers, whose addresses and scheme are the visitors'.
app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_host=1)  # type: ignore[method-assign]
app.register_blueprint(sse, url_prefix="/stream")


# Needed: opens /stream/health to ready.py and /stream/metrics to Prometheus.
@sse.authorize_admin
def is_operator(user: Any) -> bool:
    """Whether the request comes with the operators' token."""
    given = request.headers.get("Authorization", "")
    return hmac.compare_digest(given.encode(), f"Bearer {os.environ['OPERATOR_TOKEN']}".encode())


@app.get("/")
def page() -> dict[str, str | None]:
    """What the app knows of the visitor."""
    return {"address": request.remote_addr, "scheme": request.scheme, "host": request.host}
