"""The second page of the AI chat: AI SDK's useChat reads the answers.

The page needs a module that is bundled with React and AI SDK, and the demo has no Node. So the page exists
only if EXAMPLE_USE_CHAT names the module. README.md says how to make the module. The tests make it too.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, abort, jsonify, render_template, send_file, url_for
from flask_login import current_user

from flask_sse_push import sse

from ..page import json_body
from . import conversations, model

MAX_TEXT = 500

views = Blueprint("use_chat", __name__)


def key(chat: str) -> str:
    """Returns the key of a chat's run. Answers 404 if the chat belongs to another user."""
    if chat != current_user.id:
        abort(404)
    return f"chat:{chat}"


def module() -> Path:
    """Returns the path of the page's module. Answers 404 if there is none."""
    name = os.environ.get("EXAMPLE_USE_CHAT")
    if not name:
        abort(404, "this page needs a bundled module: see EXAMPLE_USE_CHAT in example_app/README.md")
    return Path(name)


@views.get("/use-chat")
def show() -> str:
    """Shows the page."""
    module()
    chat = {"id": current_user.id, "api": url_for("assistant.use_chat.ask")}
    return render_template("use-chat.html", chat={**chat, "messages": conversations.read(current_user.id)})


@views.get("/use-chat.js")
def script() -> Response:
    """Returns the page's module."""
    return send_file(module(), mimetype="text/javascript")


@views.post("/chat")
def ask() -> Any:
    """Starts an answer to the newest message. Answers 409 while another answer is running."""
    body = json_body()
    question = conversations.question_in(body.get("messages"), MAX_TEXT)
    answer_id = uuid.uuid4().hex
    items = conversations.kept(
        current_user.id, question, answer_id, model.thoughtful(question["parts"][0]["text"])
    )
    run = sse.start(items, key=key(str(body.get("id"))), id=answer_id, format="ai-sdk")
    if not run.started:
        abort(409, "one answer at a time: stop the other first")
    return run.response()


@views.get("/chat/<chat>/stream")
def resume(chat: str) -> Response:
    """Sends the answer that is under way, from its beginning. Answers 204 if there is none."""
    return sse.resume(key(chat), "ai-sdk")


@views.get("/chat/<chat>")
def messages(chat: str) -> Response:
    """Returns the stored messages."""
    key(chat)
    return jsonify(conversations.read(chat))


@views.post("/chat/<chat>/stop")
def stop(chat: str) -> Any:
    """Stops the answer, on whichever worker it runs."""
    sse.stop(key(chat))
    return jsonify()
