"""An app whose rule takes as long as a test wants. It has no loader of users.

The environment variable `RULES` names a folder. While it has a file `slow-<user>`, the rule waits for this
user. The rule then writes a file `inside-…`, so that a test knows that the rule is inside its wait. The
header `X-User`, or a token, says who asks. The rule always says yes.
"""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path
from typing import Any

from flask import Flask, Request, request

from flask_sse_push import BearerJWT, sse

#: Signs the tokens of tests.
KEY = "a secret of thirty-two bytes, at least"
FOLDER = Path(os.environ["RULES"])

app = Flask(__name__)
app.secret_key = "the workers share it"
sse.identify(BearerJWT(KEY, algorithms=["HS256"]))
app.register_blueprint(sse, url_prefix="/stream")


@sse.identify
def who(request: Request) -> str | None:
    return request.headers.get("X-User")


@sse.authorize
def allowed(user: Any, channel: str) -> bool:
    slow = FOLDER / f"slow-{getattr(user, 'id', user)}"
    if channel == "lab" and slow.exists():
        inside = FOLDER / f"inside-{uuid.uuid4().hex}"
        inside.touch()
        deadline = time.monotonic() + 60
        while slow.exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        inside.unlink()
    return user is not None


@app.post("/ticket")
def ticket() -> str:
    return sse.ticket(request.headers["X-User"], "lab")


@app.get("/")
def page() -> str:
    return "hello"
