"""An app whose runs count: each word a number, at a pace that the request names."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from flask import Flask, jsonify, request
from werkzeug import Response

from flask_sse_push import sse

app = Flask(__name__)
app.config["SSE_PUSH_PUBLIC_CHANNELS"] = ["run:*"]
app.register_blueprint(sse, url_prefix="/stream")


def count(numbers: int, pause: float) -> Iterator[str]:
    """Numbers from 0 on, a pause after each."""
    for number in range(numbers):
        yield f"{number} "
        time.sleep(pause)


@app.post("/start/<key>")
def start(key: str) -> Response:
    """Starts a run; tells the process it runs in."""
    numbers, pause = int(request.args["numbers"]), float(request.args["pause"])
    run = sse.start(count(numbers, pause), key)
    return jsonify(pid=os.getpid(), started=run.started, cursor=run.cursor)


@app.post("/stop/<key>")
def stop(key: str) -> Response:
    """Stops a run, from whatever process the request has met."""
    sse.stop(key)
    return jsonify(pid=os.getpid())
