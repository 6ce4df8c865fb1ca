"""The page "Rooms": rooms are entered and left while the stream stays open; who is in them, what is said."""

from __future__ import annotations

from typing import Any

from flask import abort, jsonify, render_template, url_for
from flask_login import current_user

from flask_sse_push import sse

from ..page import Page, json_body, now, text_in
from ..signin import USERS

ROOMS = {"garden": "Garden", "library": "Library", "workshop": "Workshop"}
#: For SSE_PUSH_PRESENCE_CHANNELS: the users of these channels are counted.
PRESENCE_CHANNELS = ("room:*",)
#: Events of a room, who came and went among them, that one who enters is told of.
MISSED = 200
MAX_TEXT = 500
#: Connection ids are shorter.
MAX_CONNECTION = 100


def channel(room: str) -> str:
    """Where it is told what is said in a room, and who comes and goes."""
    return f"room:{room}"


page = Page("rooms", __name__, allows=lambda user, name: name in map(channel, ROOMS))


@page.get("/")
def show() -> str:
    """The page. Its stream begins without a room, with the user's own channel."""
    stream = url_for("sse.stream", channels=f"user:{current_user.id}")
    people = {user.id: user.name for user in USERS.values()}
    return render_template("rooms.html", stream=stream, rooms=ROOMS, people=people, max_text=MAX_TEXT)


@page.post("/enter")
def enter() -> Any:
    """Has the page's stream join a room and get what it missed there; returns who is in it.

    Nobody but the page knows the id of its stream. A user who is not there yet is told of by an event.
    """
    body = json_body()
    room, connection = _room(body), body.get("connection")
    if not isinstance(connection, str) or not 0 < len(connection) <= MAX_CONNECTION:
        abort(400, "connection must be the id that the stream began with")
    sse.join(connection, channel(room), last=MISSED)
    return _who(room)


@page.post("/who")
def who() -> Any:
    """Returns who is in a room."""
    return _who(_room(json_body()))


@page.post("/say")
def say() -> Any:
    """Tells everybody in a room."""
    body = json_body()
    room, text = _room(body), text_in(body, "text", MAX_TEXT, "say something")
    message = {
        "room": room,
        "by": current_user.name,
        "text": text,
        "at": now(),
    }
    return jsonify(cursor=sse.publish(message, "said", channel=channel(room)))


def _who(room: str) -> Any:
    return jsonify(users=sse.presence(channel(room))["users"])


def _room(body: dict[str, Any]) -> str:
    room = body.get("room")
    if not isinstance(room, str) or room not in ROOMS:
        abort(400, f"room must be one of {', '.join(ROOMS)}")
    return room
