"""The page "Rooms": users enter and leave rooms on an open stream, see who is there, and talk."""

from __future__ import annotations

from typing import Any

from flask import abort, jsonify, render_template, url_for
from flask_login import current_user

from flask_sse_push import sse

from ..page import Page, json_body, now, text_in
from ..signin import USERS

ROOMS = {"garden": "Garden", "library": "Library", "workshop": "Workshop"}
#: What people talk about in each room.
TOPICS = {
    "garden": "Roses, tea and the weather.",
    "library": "Who has which book, in a low voice.",
    "workshop": "Looms, gears, and whose turn it is.",
}
#: Number of earlier events that a user gets on entering a room. Events about users who came or left count
#: too.
MISSED = 200
MAX_TEXT = 500
#: Limit on the characters of a connection id; real ids are shorter.
MAX_CONNECTION = 100


def channel(room: str) -> str:
    """Returns the channel of a room, with its messages and its presence events."""
    return f"room:{room}"


page = Page("rooms", __name__, allows=lambda user, name: name in map(channel, ROOMS))


@page.get("/")
def show() -> str:
    """Shows the page. Its stream begins without a room, on the user's own channel."""
    stream = url_for("sse.stream", channels=f"user:{current_user.id}")
    people = {user.id: user.name for user in USERS.values()}
    here = {room: sse.presence(channel(room))["users"] for room in ROOMS}
    return render_template(
        "rooms.html", stream=stream, rooms=ROOMS, topics=TOPICS, here=here, people=people, max_text=MAX_TEXT
    )


@page.post("/enter")
def enter() -> Any:
    """Lets the page's stream join a room and get its earlier events. Returns the users in the room.

    Only the page knows the id of its stream. A presence event announces a user who is new in the room.
    """
    body = json_body()
    room, connection = _room(body), body.get("connection")
    if not isinstance(connection, str) or not 0 < len(connection) <= MAX_CONNECTION:
        abort(400, "connection must be the id that the stream began with")
    sse.join(connection, channel(room), last=MISSED)
    return _who(room)


@page.post("/who")
def who() -> Any:
    """Returns the users in a room."""
    return _who(_room(json_body()))


@page.post("/say")
def say() -> Any:
    """Publishes a message to everybody in a room."""
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
