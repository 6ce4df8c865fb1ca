"""Whether a request is given a stream: where it comes from, who asks, and for what."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache, partial
from typing import Any, NamedTuple

from flask import Flask, Request, abort

from ..config import Settings
from ..errors import ConfigError, ErrorCode, Refused
from ..protocol.channel import checked_channels
from . import flask_login
from .identity import NOBODY, Identity, refused_token, user_id
from .tickets import LONGEST, StreamSecrets, Ticket, Tickets, stream_secrets


@dataclass
class Hooks:
    """What the app has registered."""

    identify: list[Callable[[Request], Any]] = field(default_factory=list)
    authorize: Authorize | None = None
    load_user: flask_login.Loader | None = None
    authorize_publish: Callable[[Any, str], bool] | None = None
    authorize_admin: Callable[[Any], bool] | None = None


class Grant(NamedTuple):
    """What a request may have, if there is room."""

    identity: Identity
    channels: tuple[str, ...]
    ticket: Ticket | None
    began: float  # monotonic time before its user was looked up

    def can_change(self, settings: Settings) -> bool:
        """Whether it could be taken back: not when all is public, and nobody's."""
        if self.identity.user is not None:
            return True
        public = settings.public_channels
        return not all(is_public(channel, public) for channel in self.channels)

    def vouches_for(self, channel: str) -> bool:
        """Whether its ticket settles that it may listen to `channel`, which was allowed when that was made.

        It is asked about again where the ticket's user is known: where one can be loaded.
        """
        ticket = self.ticket
        return ticket is not None and self.identity.renew is None and channel in ticket.channels


#: What a stream of nobody on public channels rests on.
NOTHING = Grant(NOBODY, (), None, 0.0)


class Policy:
    """Decides for one app, by its settings and what it has registered."""

    def __init__(self, app: Flask, settings: Settings, hooks: Hooks) -> None:
        self._app = app
        self.settings = settings
        self._hooks = hooks

    def grant(
        self, request: Request, channels: tuple[str, ...], ticket_text: str | None, *, default: bool
    ) -> Grant:
        """Decides whether a request may listen to `channels`. Reads a ticket, but does not use it up.

        :param ticket_text: the ticket in the query; None without one.
        :param default: whether the query names no channel: then a ticket's channels replace `channels`.
        :raises Refused: 401 or 403.
        """
        began = time.monotonic()
        ticket = None if ticket_text is None else self._tickets().read(ticket_text)
        if ticket is not None and default:
            channels = ticket.channels
        identity = self._identity(request) if ticket is None else self._ticket_identity(ticket)
        grant = Grant(identity, channels, ticket, began)
        for channel in channels:
            if not self._may_have(grant, channel):
                raise refused(identity.user, channel, can_sign_in=self._knows_users())
        return grant

    def judge(self, grant: Grant | None, channels: Collection[str]) -> list[str] | None:
        """Which of `channels` an open stream may not listen to any more; None when its user is nobody now.

        Asked outside any request, in an app context of its own. May block and raise, as the app's hooks do.

        :param grant: None for a stream of nobody that began with public channels.
        """
        with self._app.app_context():
            grant = grant or NOTHING
            identity, user = grant.identity, grant.identity.user
            if identity.renew is not None:
                user = identity.renew()
                if user is None:
                    return None
            return [name for name in channels if not self._may_listen(grant, user, name)]

    def ticket(self, user: Any, channels: str | Iterable[str], seconds: float = LONGEST) -> str:
        """A ticket for `user`; see `SSEBlueprint.ticket`."""
        names = checked_channels(channels)
        if len(names) > self.settings.max_channels:
            raise ValueError(f"channels are {len(names)}, at most {self.settings.max_channels} are allowed")
        public, authorize = self.settings.public_channels, self._hooks.authorize
        check(user, names, public, authorize, can_sign_in=self._knows_users())
        return self._tickets().sign(user_id(user), names, seconds)

    def admit(self, request: Request, channels: Iterable[str]) -> Identity:
        """Who asks to have `channels` added to an open stream: as when it is opened, all must be allowed.

        :raises Refused: 401 or 403.
        """
        identity = self._identity(request)
        public, authorize = self.settings.public_channels, self._hooks.authorize
        check(identity.user, channels, public, authorize, can_sign_in=self._knows_users())
        return identity

    def user(self, request: Request) -> Any:
        """Who asks; None for nobody."""
        return self._identity(request).user

    def check_admin(self, request: Request) -> None:
        """Passes for whom `@sse.authorize_admin` lets in.

        :raises NotFound: when the app lets nobody in.
        :raises Refused: 401 or 403.
        """
        is_admin = self._hooks.authorize_admin or abort(404)
        user = self.user(request)
        if not is_admin(user):
            raise self.denied(user, "this is for admins")

    def denied(self, user: Any, message: str) -> Refused:
        """The refusal of somebody who may not do what the message says."""
        if user_id(user) is None and self._knows_users():
            return Refused(401, ErrorCode.AUTH_REQUIRED, f"{message}: sign in, or send a token")
        return Refused(403, ErrorCode.PERMISSION_DENIED, message)

    def secrets(self) -> StreamSecrets | None:
        """The secrets of this app's streams; None when it has no key to sign with."""
        keys = self._keys()
        return stream_secrets(tuple(keys), self.settings.prefix) if keys[-1] else None

    def _may_have(self, grant: Grant, channel: str) -> bool:
        """Whether a stream may begin with `channel`: with a ticket, what that names and what is public."""
        if grant.ticket is not None and channel not in grant.ticket.channels:
            return is_public(channel, self.settings.public_channels)
        return self._may_listen(grant, grant.identity.user, channel)

    def _may_listen(self, grant: Grant, user: Any, channel: str) -> bool:
        """Whether the grant holds for `channel`, with its user as they are now."""
        public, authorize = self.settings.public_channels, self._hooks.authorize
        return grant.vouches_for(channel) or may_listen(user, channel, public, authorize)

    def _identity(self, request: Request) -> Identity:
        for who in self._hooks.identify or [flask_login.session_identity]:
            found = who(request)
            if found is not None:
                return self._with_loader(found)
        return NOBODY

    def _with_loader(self, found: Any) -> Identity:
        """An identity of what `@sse.identify` returned; the app's own loader keeps its user up to date."""
        if isinstance(found, Identity):
            return found
        identity = Identity(found)
        if self._hooks.load_user is None or identity.user_id is None:
            return identity
        return Identity(found, renew=partial(self._hooks.load_user, identity.user_id))

    def _knows_users(self) -> bool:
        return bool(self._hooks.identify) or flask_login.is_used(self._app)

    # -- tickets -----------------------------------------------------------------------------------------

    def _ticket_identity(self, ticket: Ticket) -> Identity:
        """Whose ticket it is. Without a way to load users, the user is the id that the ticket names."""
        load = self._hooks.load_user or flask_login.loader(self._app)
        if ticket.user_id is None or load is None:
            return Identity(ticket.user_id)
        user = load(ticket.user_id)
        if user is None:
            raise refused_token()
        return Identity(user, renew=partial(load, ticket.user_id))

    def _keys(self) -> list[Any]:
        return [*(self._app.config.get("SECRET_KEY_FALLBACKS") or ()), self._app.secret_key]

    def _tickets(self) -> Tickets:
        keys = self._keys()
        if not keys[-1]:
            raise ConfigError("SECRET_KEY", keys[-1], "a secret of the app's: tickets are signed with it")
        return Tickets(keys, self.settings.prefix)


#: `allowed(user, channel) -> bool`, given by the app.
Authorize = Callable[[Any, str], bool]

ADVICE = "to open a channel, name it in SSE_PUSH_PUBLIC_CHANNELS or allow it in @sse.authorize"


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
