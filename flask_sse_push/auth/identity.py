"""Who asks for a stream: identities, and the ready-made ways to find one.

`@sse.identify` may be given several of them; the first that knows somebody counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import ErrorCode, Refused


@dataclass(frozen=True)
class Identity:
    """Who asks. `@sse.identify` may return one instead of a user.

    :param user: what `@sse.authorize` is given; None is nobody.
    :param expires: Unix time in seconds at which the stream is closed; None: it is not.
    :param renew: asked again and again while the stream is open, outside any request: returns the user as
        they are now, or None when they may not listen any more. None: the user stays what it was.
    """

    user: Any
    expires: float | None = None
    renew: Callable[[], Any] | None = None

    @property
    def user_id(self) -> str | None:
        """The user's id as text; None for nobody."""
        return user_id(self.user)


NOBODY = Identity(None)


def refused_token() -> Refused:
    """401 for a token that proves nothing; says no more than that."""
    return Refused(401, ErrorCode.AUTH_FAILED, "the token or ticket is not valid")


def expired_token() -> Refused:
    """401 for a token whose time is over."""
    return Refused(401, ErrorCode.AUTH_EXPIRED, "the token or ticket has expired; get a new one")


def user_id(user: Any) -> str | None:
    """The id of a user object as text: flask-login's `get_id()`, an `id`, or the object itself."""
    if user is None:
        return None
    get_id = getattr(user, "get_id", None)
    found = get_id() if callable(get_id) else getattr(user, "id", user)
    return None if found is None else str(found)
