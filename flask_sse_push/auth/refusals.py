"""Makes the refusals of users who may not do something: what the client gets, and what the log says."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from flask import Flask

from ..config import Settings
from ..config.channel_policies import ADMIN_CHANNEL
from ..errors import ErrorCode, Refused
from . import flask_login
from .hooks import Hooks

#: What to do about a refused channel, and about a refused channel of one user.
ADVICE = (
    'to open a channel, name it in SSE_PUSH_PUBLIC_CHANNELS, set "public": True for it in SSE_PUSH_CHANNELS, '
    "or allow it in @sse.authorize"
)
OWN_ADVICE = "only the user with this id may listen to it, unless @sse.authorize allows it to others"
NO_USERS_ADVICE = (
    "nobody is signed in, and the app has no way to identify users: set up flask-login, or register a "
    "function with @sse.identify"
)


class Refusals(ABC):
    """The part of `Policy` that makes refusals."""

    settings: Settings
    _app: Flask
    _hooks: Hooks

    @abstractmethod
    def user_id(self, user: Any) -> str | None:
        """Returns the id of a user object as text; None if `user` is None."""

    def refusal(self, user: Any, message: str) -> Refused:
        """Returns the error 401 if the request has no user and users can sign in, else the error 403."""
        if self._should_sign_in(user):
            return Refused(401, ErrorCode.AUTH_REQUIRED, f"{message}: sign in, or send a token")
        return Refused(403, ErrorCode.PERMISSION_DENIED, message)

    def _channel_refusal(self, user: Any, channel: str) -> Refused:
        """Returns the error 401 or 403 for a forbidden channel.

        The error is the same for a channel that does not exist, so clients cannot learn which channels exist.
        """
        if channel == ADMIN_CHANNEL:
            return self.refusal(user, f"@sse.authorize_admin decides who may listen to {channel!r}")
        is_own = channel.startswith("user:")
        advice = OWN_ADVICE if is_own else ADVICE
        details, for_log = {"channel": channel}, f"{self._described(user)}; {self._decision(channel)}"
        if self._should_sign_in(user):
            message = f"the channel {channel!r} is not public: sign in, or send a token or a ticket"
            for_log += f"; {advice}"
            return Refused(401, ErrorCode.AUTH_REQUIRED, message, details=details, for_log=for_log)
        if is_own and self.user_id(user) is None:
            advice = NO_USERS_ADVICE
        message = f"listening to the channel {channel!r} is not allowed; {advice}"
        denied, id = ErrorCode.PERMISSION_DENIED, self.user_id(user)
        return Refused(403, denied, message, details=details, for_log=for_log, user_id=id)

    def _described(self, user: Any) -> str:
        id = self.user_id(user)
        return "the request has no user" if id is None else f"the user is {id[:100]!r}"

    def _decision(self, channel: str) -> str:
        """Returns what decided about a channel that is not allowed.

        To open a user's own channel to everybody is no remedy, so the settings are not named for it.
        """
        authorize = self._hooks.authorize
        if authorize is None and channel.startswith("user:"):
            return "the app has no @sse.authorize rule"
        if authorize is None:
            return f"{not_public(self.settings, channel)}, and the app has no @sse.authorize rule"
        return f"the @sse.authorize rule {getattr(authorize, '__qualname__', authorize)} returned False"

    def _should_sign_in(self, user: Any) -> bool:
        """Whether signing in may help: the request has no user, and the app can identify users."""
        knows_users = bool(self._hooks.identify) or flask_login.is_used(self._app)
        return knows_users and self.user_id(user) is None


def not_public(settings: Settings, channel: str) -> str:
    """Returns a clause that says why not everybody may listen to a channel that is not public."""
    pattern = settings.policies.closed_by(channel)
    if pattern is None:
        return "no setting makes it public"
    return f"the policy of {pattern!r} in SSE_PUSH_CHANNELS says that it is not public"
