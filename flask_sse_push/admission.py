"""Whether a request is given a stream: where it comes from, who asks, and for what."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from flask import Flask, Request, abort

from . import access, cors, login
from .auth import NOBODY, Identity, refused_token
from .config import Settings
from .errors import ConfigError, ErrorCode, Refused
from .event import checked_channels
from .query import Asked
from .tickets import LONGEST, StreamSecrets, Ticket, Tickets, stream_secrets


@dataclass
class Hooks:
    """What the app has registered."""

    identify: list[Callable[[Request], Any]] = field(default_factory=list)
    authorize: access.Authorize | None = None
    load_user: login.Loader | None = None
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
        return not all(access.is_public(channel, public) for channel in self.channels)

    def vouches_for(self, channel: str) -> bool:
        """Whether its ticket settles that it may listen to `channel`, which was allowed when that was made.

        It is asked about again where the ticket's user is known: where one can be loaded.
        """
        ticket = self.ticket
        return ticket is not None and self.identity.renew is None and channel in ticket.channels


#: What a stream of nobody on public channels rests on.
NOTHING = Grant(NOBODY, (), None, 0.0)


class Admission:
    """Decides for one app, by its settings and what it has registered."""

    def __init__(self, app: Flask, settings: Settings, hooks: Hooks) -> None:
        self._app = app
        self.settings = settings
        self._hooks = hooks

    def grant(self, request: Request, asked: Asked) -> Grant:
        """What the request may have of what it asks for. A ticket is looked at here, but not used up.

        :raises Refused: 401 or 403.
        """
        if self.settings.cors_origins:
            cors.check(request, self.settings.cors_origins)
        began = time.monotonic()
        channels = asked.channels
        ticket = None if asked.ticket is None else self._tickets().read(asked.ticket)
        if ticket is not None and not asked.names_channels:
            channels = ticket.channels
        identity = self._identity(request) if ticket is None else self._ticket_identity(ticket)
        grant = Grant(identity, channels, ticket, began)
        for channel in channels:
            if not self._may_have(grant, channel):
                raise access.refused(identity.user, channel, can_sign_in=self._knows_users())
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
        access.check(user, names, public, authorize, can_sign_in=self._knows_users())
        return self._tickets().sign(access.user_id(user), names, seconds)

    def admit(self, request: Request, channels: Iterable[str]) -> Identity:
        """Who asks to have `channels` added to an open stream: as when it is opened, all must be allowed.

        :raises Refused: 401 or 403.
        """
        identity = self._identity(request)
        public, authorize = self.settings.public_channels, self._hooks.authorize
        access.check(identity.user, channels, public, authorize, can_sign_in=self._knows_users())
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
        if access.user_id(user) is None and self._knows_users():
            return Refused(401, ErrorCode.AUTH_REQUIRED, f"{message}: sign in, or send a token")
        return Refused(403, ErrorCode.PERMISSION_DENIED, message)

    def secrets(self) -> StreamSecrets | None:
        """The secrets of this app's streams; None when it has no key to sign with."""
        keys = self._keys()
        return stream_secrets(tuple(keys), self.settings.prefix) if keys[-1] else None

    def _may_have(self, grant: Grant, channel: str) -> bool:
        """Whether a stream may begin with `channel`: with a ticket, what that names and what is public."""
        if grant.ticket is not None and channel not in grant.ticket.channels:
            return access.is_public(channel, self.settings.public_channels)
        return self._may_listen(grant, grant.identity.user, channel)

    def _may_listen(self, grant: Grant, user: Any, channel: str) -> bool:
        """Whether the grant holds for `channel`, with its user as they are now."""
        public, authorize = self.settings.public_channels, self._hooks.authorize
        return grant.vouches_for(channel) or access.may_listen(user, channel, public, authorize)

    def _identity(self, request: Request) -> Identity:
        for who in self._hooks.identify or [login.session_identity]:
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
        return bool(self._hooks.identify) or login.is_used(self._app)

    # -- tickets -----------------------------------------------------------------------------------------

    def _ticket_identity(self, ticket: Ticket) -> Identity:
        """Whose ticket it is. Without a way to load users, the user is the id that the ticket names."""
        load = self._hooks.load_user or login.loader(self._app)
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
