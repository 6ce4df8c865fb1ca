"""A Flask view that returns a short string. It shows what a request costs without streaming."""

from __future__ import annotations

from flask import Flask

app = Flask(__name__)


@app.get("/stream")
def empty() -> str:
    return "ok"
