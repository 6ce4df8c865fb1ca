"""A Flask view that returns a short string: what one request costs before any streaming."""

from __future__ import annotations

from flask import Flask

app = Flask(__name__)


@app.get("/stream")
def empty() -> str:
    return "ok"
