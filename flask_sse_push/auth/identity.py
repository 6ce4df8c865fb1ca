"""Who sends a request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import ErrorCode, Refused


@dataclass(frozen=True)
class Identity:
    """Who sends a request. A function given to `@sse.identify` may return one instead of a user.

    :param user: the user object that `@sse.authorize` gets; None is nobody.
    :param expires: Unix time in seconds at which the stream ends; None: it does not end by time.
    :param renew: returns the user as they are now, or None if they may not listen any more. Called for each
        recheck of the open stream, outside any request. None: the user stays what it was.
    """

    user: Any
    expires: float | None = None
    renew: Callable[[], Any] | None = None

    @property
    def user_id(self) -> str | None:
        """The user's id as text; None for nobody."""
        return user_id(self.user)


NOBODY = Identity(None)


def user_id(user: Any) -> str | None:
    """Returns the id of a user object as text: flask-login's `get_id()`, else its `id`, else the object
    itself; None for nobody."""
    if user is None:
        return None
    get_id = getattr(user, "get_id", None)
    found = get_id() if callable(get_id) else getattr(user, "id", user)
    return None if found is None else str(found)


def invalid_token() -> Refused:
    """Returns the 401 for a token or ticket that is not valid. The message does not say why."""
    return Refused(401, ErrorCode.AUTH_FAILED, "the token or ticket is not valid")


def expired_token() -> Refused:
    """Returns the 401 for a token or ticket that has expired."""
    return Refused(401, ErrorCode.AUTH_EXPIRED, "the token or ticket has expired; get a new one")
