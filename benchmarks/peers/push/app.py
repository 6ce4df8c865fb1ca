"""flask_sse_push, set up as its README describes. The settings come from the environment."""

from __future__ import annotations

from flask import Flask

from flask_sse_push import sse

app = Flask(__name__)
app.register_blueprint(sse, url_prefix="/stream")
