"""Checks the ids of users that an app passes to methods such as `send_to_user` and `revoke`."""

from __future__ import annotations

from uuid import UUID

from ..errors import InvalidEvent, shown
from .channel import channel_problem, is_channel

#: What the channel of a user begins with. The rest of its name is the id of the user.
USER = "user:"


def checked_user_id(user_id: object) -> str:
    """Returns the id of a user as text.

    :raises TypeError: if `user_id` is neither a string nor a whole number nor a UUID. The text of anything
        else, such as None or a user object, would be the id of nobody.
    :raises InvalidEvent: if `user_id` is an empty string.
    """
    if not isinstance(user_id, (str, int, UUID)) or isinstance(user_id, bool):
        hint = "pass user.id, not the user" if hasattr(user_id, "id") else "pass the id of a user"
        raise TypeError(f"user_id is {shown(user_id)}, must be a str, an int or a UUID: {hint}")
    if user_id == "":
        raise InvalidEvent("user_id", "is empty, which is the id of no user")
    return str.__str__(user_id) if isinstance(user_id, str) else str(user_id)


def user_channel(user_id: object) -> str:
    """Returns the name of a user's channel, `user:<id>`.

    :raises TypeError: if `user_id` is neither a string nor a whole number nor a UUID.
    :raises InvalidEvent: if the name of a channel cannot have the id as a part.
    """
    id = checked_user_id(user_id)
    channel = f"{USER}{id}"
    if not is_channel(channel):
        problem = channel_problem(id, 200 - len(USER))
        raise InvalidEvent("user_id", f"{problem}; the id is a part of the name of the user's channel")
    return channel
