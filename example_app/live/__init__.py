"""The page "Live": the events of several channels over one stream, and a form to publish."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from flask import Blueprint, abort, jsonify, render_template, request, url_for
from flask_login import current_user, login_required
from werkzeug.exceptions import HTTPException

from flask_sse_push import BrokerUnavailable, InvalidEvent, sse

from ..signin import USERS

page = Blueprint("live", __name__, url_prefix="/live", template_folder="templates", static_folder="static")


@page.get("/")
def show() -> str:
    """The page. Its stream carries what everybody may see; for who has signed in also what members may, and
    what is for this user alone."""
    channels = ["news", "ticks"]
    if current_user.is_authenticated:
        channels += ["chat", f"user:{current_user.id}"]
    stream = url_for("sse.stream", channels=",".join(channels))
    return render_template("live.html", stream=stream, channels=channels, targets=_targets())


@page.post("/publish")
@login_required  # type: ignore[untyped-decorator]
def publish() -> dict[str, str]:
    """Publishes what the form sent as JSON, and returns the event's cursor.

    A form of another site cannot send JSON without asking first (a CORS preflight), which gets no leave.
    """
    body = _json_body()
    channel, text = body.get("channel"), body.get("text")
    if not isinstance(channel, str) or channel not in _targets():
        abort(403, f"publishing to {channel!r} is not allowed")
    if not isinstance(text, str) or not text.strip():
        abort(400, "text is missing")
    message = {
        "from": current_user.name,
        "text": text.strip(),
        "at": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
    }
    # Several channels share one stream: the type tells the page what an event is.
    return {"cursor": sse.publish(message, _type(channel), channel=channel)}


def _targets() -> dict[str, str]:
    """The channels the form offers, each with what it says of them. Only the ticker publishes ticks."""
    return {"news": "News, to everybody", "chat": "Chat, to all who signed in"} | {
        f"user:{user.id}": f"Private, to {user.name}" for user in USERS.values()
    }


def _type(channel: str) -> str:
    return "private" if channel.startswith("user:") else channel


def _json_body() -> dict[str, Any]:
    if request.mimetype != "application/json":
        abort(415, "send application/json")
    body = request.get_json()
    if not isinstance(body, dict):
        abort(400, "send a JSON object")
    return body


@page.errorhandler(HTTPException)
def _failed(error: HTTPException) -> Any:
    return jsonify(error=error.description), error.code


@page.errorhandler(InvalidEvent)
def _refused(error: InvalidEvent) -> Any:
    return jsonify(error=str(error)), 400


@page.errorhandler(BrokerUnavailable)
def _unavailable(error: BrokerUnavailable) -> Any:
    return jsonify(error=str(error)), 503
