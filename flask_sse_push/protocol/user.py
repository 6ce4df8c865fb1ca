"""Checks the ids of users that an app passes to methods such as `send_to_user` and `revoke`."""

from __future__ import annotations

from uuid import UUID

from ..errors import InvalidEvent, shown


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
