"""The page "AI chat": answers come word by word, go on while the page is loaded again, and can be stopped.

The conversation is nothing but the channel of the user's run: each answer begins with its question, so a page
that reads the channel from its earliest event has all of it.
"""

from __future__ import annotations

from typing import Any

from flask import abort, jsonify, render_template, url_for
from flask_login import current_user

from flask_sse_push import sse

from ..page import Page, json_body, text_in
from . import model

MAX_TEXT = 500


def channel(user: Any) -> str:
    """Where the conversation of `user` is, who alone may listen to it."""
    return f"run:{user.id}"


page = Page("assistant", __name__, allows=lambda user, name: name == channel(user))


@page.get("/")
def show() -> str:
    """The page."""
    stream = url_for("sse.stream", channels=channel(current_user))
    return render_template("assistant.html", stream=stream, max_text=MAX_TEXT)


@page.post("/ask")
def ask() -> Any:
    """Begins an answer to the question, unless one is under way."""
    question = text_in(json_body(), "question", MAX_TEXT, "ask something")
    run = sse.start(model.conversation(question), key=current_user.id)
    if not run.started:
        abort(409, "one answer at a time: stop the other first")
    return jsonify(cursor=run.cursor)


@page.post("/stop")
def stop() -> Any:
    """Ends the answer, whichever worker gives it."""
    sse.stop(current_user.id)
    return jsonify()
