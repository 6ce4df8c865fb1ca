"""Who may listen to what: deny by default."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

from .errors import ErrorCode, Refused

#: `allowed(user, channel) -> bool`, given by the app.
Authorize = Callable[[Any, str], bool]

ADVICE = "to open a channel, name it in SSE_PUSH_PUBLIC_CHANNELS or allow it in @sse.authorize"


def user_id(user: Any) -> str | None:
    """The id of a user object as text: flask-login's `get_id()`, an `id`, or the object itself."""
    if user is None:
        return None
    get_id = getattr(user, "get_id", None)
    found = get_id() if callable(get_id) else getattr(user, "id", user)
    return None if found is None else str(found)


@lru_cache(1024)
def is_public(channel: str, public: tuple[str, ...]) -> bool:
    """Whether anybody may listen to `channel`."""
    return any(fnmatchcase(channel, pattern) for pattern in public)


def may_listen(user: Any, channel: str, public: tuple[str, ...], authorize: Authorize | None) -> bool:
    """Whether `user` (None: nobody signed in) may listen to `channel`."""
    if is_public(channel, public):
        return True
    own = user_id(user)
    if own is not None and channel == f"user:{own}":
        return True
    return authorize is not None and bool(authorize(user, channel))


def check(
    user: Any,
    channels: Iterable[str],
    public: tuple[str, ...],
    authorize: Authorize | None,
    *,
    can_sign_in: bool = False,
) -> None:
    """Passes when every channel is allowed.

    :param can_sign_in: whether the app knows users at all: then nobody is asked to become one.
    :raises Refused: 401 for nobody, else 403; the same for a forbidden channel and one that does not exist.
    """
    for channel in channels:
        if not may_listen(user, channel, public, authorize):
            raise refused(user, channel, can_sign_in=can_sign_in)


def refused(user: Any, channel: str, *, can_sign_in: bool) -> Refused:
    """The answer to who may not listen to `channel`."""
    if can_sign_in and user_id(user) is None:
        return Refused(
            401,
            ErrorCode.AUTH_REQUIRED,
            f"the channel {channel!r} is not public: sign in, or send a token or a ticket",
            details={"channel": channel},
        )
    return Refused(
        403,
        ErrorCode.PERMISSION_DENIED,
        f"listening to the channel {channel!r} is not allowed; {ADVICE}",
        details={"channel": channel},
    )
