"""The page "AI chat": answers come word by word, go on while the page is loaded again, and can be stopped.

The conversation is nothing but the channel of the user's run: each answer begins with its question, so a page
that reads the channel from its earliest event has all of it.
"""

from __future__ import annotations

from typing import Any

from flask import Blueprint, abort, jsonify, render_template, request, url_for
from flask_login import current_user, login_required
from werkzeug.exceptions import HTTPException

from flask_sse_push import BrokerUnavailable, sse

from . import model

page = Blueprint(
    "assistant", __name__, url_prefix="/assistant", template_folder="templates", static_folder="static"
)

MAX_QUESTION = 500


def channel(user: Any) -> str:
    """Where the conversation of `user` is, who alone may listen to it."""
    return f"run:{user.id}"


@page.get("/")
@login_required  # type: ignore[untyped-decorator]
def show() -> str:
    """The page."""
    return render_template("assistant.html", stream=url_for("sse.stream", channels=channel(current_user)))


@page.post("/ask")
@login_required  # type: ignore[untyped-decorator]
def ask() -> Any:
    """Begins an answer to the question sent as JSON, unless one is under way."""
    body = request.get_json()
    question = body.get("question") if isinstance(body, dict) else None
    if not isinstance(question, str) or not 0 < len(question.strip()) <= MAX_QUESTION:
        abort(400, f"ask something, in at most {MAX_QUESTION} characters")
    run = sse.start(model.conversation(question.strip()), key=current_user.id)
    if not run.started:
        abort(409, "one answer at a time: stop the other first")
    return jsonify(cursor=run.cursor)


@page.post("/stop")
@login_required  # type: ignore[untyped-decorator]
def stop() -> Any:
    """Ends the answer, whichever worker gives it."""
    sse.stop(current_user.id)
    return jsonify()


@page.errorhandler(HTTPException)
def _failed(error: HTTPException) -> Any:
    return jsonify(error=error.description), error.code


@page.errorhandler(BrokerUnavailable)
def _unavailable(error: BrokerUnavailable) -> Any:
    return jsonify(error=str(error)), 503
