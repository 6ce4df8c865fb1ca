"""An app from flask-sse's documentation. Only the import is changed."""

from __future__ import annotations

import os

from flask import Flask, render_template_string

from flask_sse_push import sse

app = Flask(__name__)
app.config["REDIS_URL"] = os.environ["REDIS_URL"]
app.register_blueprint(sse, url_prefix="/stream")


@app.route("/")
def index() -> str:
    return render_template_string("{{ url_for('sse.stream') }} {{ url_for('sse.stream', channel='x') }}")


@app.route("/hello")
def publish_hello() -> str:
    sse.publish({"message": "Hello!"}, type="greeting")
    return "Message sent!"


@app.route("/hello-x")
def publish_x() -> str:
    sse.publish({"message": "Hello x!"}, type="greeting", channel="x")
    return "Message sent!"
