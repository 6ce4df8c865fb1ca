"""The identity of a request: who sends it."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ..errors import ErrorCode, Refused, shown


@dataclass(frozen=True)
class Identity:
    """Says who sends a request. A function registered with `@sse.identify` returns a user or an Identity.

    :param user: the user object that `@sse.authorize` gets; None stands for a visitor without a user.
    :param expires: the Unix time, in seconds, at which the stream ends; None if the identity never expires.
    :param renew: a function that returns the current user object, or None if the user may not listen any
        more. Each recheck of the open stream calls this function, outside any request. Without this function,
        rechecks use `user` unchanged.
    :param session: a name of the browser's session. The stream ends when another user signs in with this
        session; flask-login's sessions have such names. None if the user has no session.
    :raises ValueError: if `expires` is no number, or a number of more than about 300 digits.
    """

    user: Any
    expires: float | None = None
    renew: Callable[[], Any] | None = None
    session: str | None = None

    def __post_init__(self) -> None:
        if self.expires is not None:
            object.__setattr__(self, "expires", _checked_time(self.expires))

    @property
    def user_id(self) -> str | None:
        """The user's id as text, in an app without `@sse.user_id`; None if the request has no user."""
        return user_id(self.user)


NOBODY = Identity(None)


class ForeignToken(Refused):
    """The token of a request comes from another issuer than a function given to `sse.identify` expects.

    Another function given to `sse.identify` may know the issuer. If none does, the request gets 401.
    """

    def __init__(self, reason: str) -> None:
        error = invalid_token(reason)
        super().__init__(error.status, error.code, error.message, for_log=reason)


def first_found(functions: Iterable[Callable[[Any], Any]], request: Any) -> Any:
    """Calls the functions in turn until one of them finds the user of a request.

    Returns what this function returns; None if no function finds a user.

    :raises Refused: if a function refuses the request, or if the request has a token that no function knows.
    """
    foreign: ForeignToken | None = None
    for function in functions:
        try:
            found = function(request)
        except ForeignToken as error:
            foreign = foreign or error
            continue
        if found is not None:
            return found
    if foreign is not None:
        raise foreign
    return None


def _checked_time(expires: Any) -> float | None:
    """Returns a Unix time as a float; None for infinity, which no time reaches."""
    number = math.nan
    if hasattr(expires, "__float__") and not isinstance(expires, bool):  # a Decimal and a number of numpy too
        with contextlib.suppress(ArithmeticError, TypeError, ValueError):
            number = float(expires)
    if math.isnan(number) or number == -math.inf:
        raise ValueError(
            f"Identity: expires is {shown(expires)}, must be a Unix time in seconds: of a datetime, take its "
            "timestamp()"
        )
    return None if number == math.inf else number


def user_id(user: Any) -> str | None:
    """Returns the id of a user object as text; None if `user` is None.

    The id is the attribute `id`, else the result of flask-login's `get_id()`, else the object itself. An app
    may let `get_id()` return a secret token, which other users must not see.
    """
    if user is None:
        return None
    get_id = getattr(user, "get_id", None)
    if not callable(get_id):
        found = getattr(user, "id", user)
    else:
        known_by = get_id()  # None for the anonymous user of flask-login
        found = None if known_by is None else getattr(user, "id", known_by)
    return None if found is None else str(found)


def login_id(user: Any) -> str | None:
    """Returns the id by which flask-login's `user_loader` finds a user; None if it finds no such user."""
    get_id = getattr(user, "get_id", None)
    found = get_id() if callable(get_id) else None
    return None if found is None else str(found)


def invalid_token(reason: str = "") -> Refused:
    """Returns the error 401 for an invalid bearer token. Only the log gives the reason."""
    return Refused(401, ErrorCode.AUTH_FAILED, "the bearer token is not valid", for_log=reason)


def invalid_ticket() -> Refused:
    """Returns the error 401 for an invalid ticket, or one that was used before."""
    return Refused(401, ErrorCode.AUTH_FAILED, "the ticket is not valid, or was used before; get a new one")


def expired_token() -> Refused:
    """Returns the error 401 for a token or ticket that has expired."""
    return Refused(401, ErrorCode.AUTH_EXPIRED, "the token or ticket has expired; get a new one")


def refuse_expired(identity: Identity) -> None:
    """Does nothing while the identity is valid.

    :raises Refused: 401, if the identity has expired.
    """
    if identity.expires is not None and identity.expires <= time.time():
        raise expired_token()
