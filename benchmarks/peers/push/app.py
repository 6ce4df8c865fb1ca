"""flask_sse_push as its README sets it up; everything else comes from the environment."""

from __future__ import annotations

from flask import Flask

from flask_sse_push import sse

app = Flask(__name__)
app.register_blueprint(sse, url_prefix="/stream")
