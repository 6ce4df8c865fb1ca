"""The page "AI chat": an answer arrives word by word, continues during a reload of the page, and can be
stopped.

The app stores no conversation. The channel of the user's run contains all of it, because each run publishes
the question before the answer. A page reads the channel from its earliest event on.
"""

from __future__ import annotations

from typing import Any

from flask import abort, jsonify, render_template, url_for
from flask_login import current_user

from flask_sse_push import sse

from ..page import Page, json_body, text_in
from . import model, use_chat

MAX_TEXT = 500
#: Questions that the page offers to start with.
IDEAS = ("How do your words get to me?", "What happens when I reload?", "What if your worker is killed?")


def channel(user: Any) -> str:
    """Returns the channel with the conversation of `user`. Only this user may listen to it."""
    return f"run:{user.id}"


page = Page("assistant", __name__, allows=lambda user, name: name == channel(user))
page.register_blueprint(use_chat.views)


@page.get("/")
def show() -> str:
    """Shows the page."""
    stream = url_for("sse.stream", channels=channel(current_user))
    return render_template("assistant.html", stream=stream, ideas=IDEAS, max_text=MAX_TEXT)


@page.post("/ask")
def ask() -> Any:
    """Starts an answer to the question. Answers 409 while another answer is running."""
    question = text_in(json_body(), "question", MAX_TEXT, "ask something")
    run = sse.start(model.conversation(question), key=current_user.id)
    if not run.started:
        abort(409, "one answer at a time: stop the other first")
    return jsonify(cursor=run.cursor)


@page.post("/stop")
def stop() -> Any:
    """Stops the answer, on whichever worker it runs."""
    sse.stop(current_user.id)
    return jsonify()
