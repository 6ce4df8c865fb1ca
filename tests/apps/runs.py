"""An app whose runs count: each text is a number. The request says how many, and how fast."""

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
    """Yields the numbers from 0 on, and pauses for `pause` seconds after each."""
    for number in range(numbers):
        yield f"{number} "
        time.sleep(pause)


@app.post("/start/<key>")
def start(key: str) -> Response:
    """Starts a run. The answer has the pid of this process, where the run would go on."""
    numbers, pause = int(request.args["numbers"]), float(request.args["pause"])
    run = sse.start(count(numbers, pause), key)
    return jsonify(pid=os.getpid(), started=run.started, cursor=run.cursor)


@app.get("/read/<key>/<format>")
def read(key: str, format: str) -> Response:
    """Reads a run in the format of a front end. The header X-Worker has the pid of this process."""
    response = sse.resume(key, format)
    response.headers["X-Worker"] = str(os.getpid())
    return response


@app.post("/stop/<key>")
def stop(key: str) -> Response:
    """Stops a run, whichever process it runs in. The answer has the pid of this process."""
    sse.stop(key)
    return jsonify(pid=os.getpid())
