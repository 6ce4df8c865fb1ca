"""Decides who may open a stream, and which channels the stream may have when it opens and later."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from flask import Flask, Request, abort

from ..config import Settings
from ..config.channel_policies import ADMIN_CHANNEL
from ..errors import ConfigError, ErrorCode, Refused
from ..hub.callbacks import calling
from ..protocol.channel import MAX_CHANNELS, checked_channels
from . import doctor_pass, flask_login
from .admin_tokens import AdminTokens
from .hooks import Authorize, Hooks
from .identity import NOBODY, Identity, first_found, invalid_ticket, login_id, refuse_expired, user_id
from .refusals import Refusals
from .tickets import StreamSecrets, Ticket, Tickets, stream_secrets, tickets_signed_with


class Grant(NamedTuple):
    """Permission for one request to open a stream: for which user, and with which channels."""

    identity: Identity = NOBODY
    user_id: str | None = None
    channels: tuple[str, ...] = ()
    ticket: Ticket | None = None
    began: float = 0.0  # monotonic time at which the request began, before the user was looked up
    can_change: bool = False  # whether rechecks are needed; False: no user, and only public channels
    vouched: bool = False  # whether a view of the app has decided that the user may listen

    @property
    def asked(self) -> str | None:
        """A cursor from before the app allowed the channels of the ticket; None without a ticket."""
        return None if self.ticket is None else self.ticket.asked

    @property
    def session(self) -> str | None:
        """The name of the session that the user signed in with; None if there is none."""
        return self.identity.session


#: The grant of a stream that was opened without a user and has public channels only.
ANONYMOUS = Grant()


class Policy(Refusals):
    """Decides who may listen to the channels of one app, by the app's settings and hooks.

    The methods call the hooks. So a method blocks as long as a hook does, and raises a hook's exceptions.
    """

    def __init__(self, app: Flask, settings: Settings, hooks: Hooks) -> None:
        self._app = app
        self.settings = settings
        self._hooks = hooks

    # -- checks for streams ------------------------------------------------------------------------------

    def grant(
        self,
        request: Request,
        channels: tuple[str, ...],
        ticket_text: str | None,
        began: float,
        *,
        default: bool,
    ) -> Grant:
        """Returns the grant for a request that wants to open a stream: its user and its channels.

        Checks the ticket, but does not mark the ticket as used.

        :param ticket_text: the ticket in the query; None if the query has no ticket.
        :param began: the monotonic time at which the request began.
        :param default: whether the query names no channel; the ticket's channels then replace `channels`.
        :raises Refused: 401 or 403, if the ticket is not valid, or if the user may not listen to a channel.
        """
        most = self.settings.max_channels
        if ticket_text is not None and not self._app.secret_key:  # then the app has given no ticket
            raise invalid_ticket()
        ticket = None if ticket_text is None else self._tickets().read(ticket_text, most)
        if ticket is not None and default:
            channels = ticket.channels
        identity = self._identify(request) if ticket is None else self._ticket_identity(ticket)
        user, policies = identity.user, self.settings.policies
        closed = [name for name in channels if not policies[name].public]
        grant = Grant(
            identity,
            None if user is None else self.user_id(user),
            channels,
            ticket,
            began,
            can_change=bool(closed) or user is not None,
        )
        for name in closed:
            named = ticket is None or name in ticket.channels
            if not (named and self.may_listen(user, name)):
                raise self._channel_refusal(user, name)
        return grant

    def vouched(self, request: Request, channels: tuple[str, ...], began: float) -> Grant:
        """Returns the grant for a request whose view has decided itself that the user may read the channels.

        :param began: the monotonic time at which the request began.
        """
        identity = self._identify(request)
        user_id = self.user_id(identity.user)
        return Grant(identity, user_id, channels, None, began, user_id is not None, vouched=True)

    def check_join(self, request: Request, channels: Iterable[str]) -> str | None:
        """Checks a request to add `channels` to an open stream. Returns the id of its user, or None.

        :raises Refused: 401 or 403, if the sender may not listen to one of the channels.
        """
        identity = self._identify(request)
        self.check(identity.user, channels)
        return self.user_id(identity.user)

    def find_forbidden(self, grant: Grant | None, channels: Collection[str]) -> list[str] | None:
        """Returns the channels that an open stream may no longer listen to.

        Returns None if the app no longer knows the user of the stream.

        Called by a thread of the rechecks, outside any request. Pushes an app context.

        :param grant: the stream's grant; None for a stream that was opened without a user and had public
            channels only.
        :param channels: the channels to check.
        :raises CallbackFailed: if a function of the app raises an error, whatever the error.
        """
        grant = grant or ANONYMOUS
        with calling("app context", self._app), self._app.app_context():
            user, renew = grant.identity.user, grant.identity.renew
            if renew is not None:
                with calling("load_user", renew):
                    user = renew()
                if user is None:
                    return None
            with calling("authorize", self._hooks.authorize):
                ordinary = [name for name in channels if name != ADMIN_CHANNEL]
                forbidden = [name for name in ordinary if not self.may_listen(user, name)]
            if len(ordinary) < len(channels):
                with calling("authorize_admin", self._hooks.authorize_admin):
                    forbidden += [] if self.may_listen(user, ADMIN_CHANNEL) else [ADMIN_CHANNEL]
            return forbidden

    def ticket(self, user: Any, channels: str | Iterable[str], seconds: float, asked: str) -> str:
        """Returns a signed ticket for `user`; see `SSEBlueprint.ticket`.

        :param asked: a cursor from before this call, and from before `user` was loaded.
        """
        names = checked_channels(channels, max(MAX_CHANNELS, self.settings.max_channels), "channels")
        if len(names) > self.settings.max_channels:
            raise ValueError(f"got {len(names)} channels, at most {self.settings.max_channels} are allowed")
        self.check(user, names)
        session = flask_login.session_name(self._app, user)
        return self._tickets().sign(self.user_id(user), names, seconds, asked, login_id(user), session)

    def secrets(self) -> StreamSecrets | None:
        """Returns the object that computes the secrets of streams; None if the app has no `SECRET_KEY`."""
        keys = self._keys()
        return stream_secrets(keys, self.settings.prefix) if keys[-1] else None

    # -- checks for other requests -----------------------------------------------------------------------

    def user_id(self, user: Any) -> str | None:
        """Returns the id of a user object as text; None if `user` is None.

        :raises TypeError: if the user object has no id and no text of its own.
        """
        id, id_of = user_id(user), self._hooks.user_id
        if id is None or isinstance(user, (str, int)):  # a ticket's user may be just an id
            return id
        if id_of is not None:
            found = id_of(user)
            id = None if found is None else str(found)
        if id is not None and " object at 0x" in id:  # the address differs in each request
            raise TypeError(
                f"the user {id} has no id: give it an attribute `id` or a method `get_id`, or let a function "
                "with @sse.user_id return a string"
            )
        return id

    def user(self, request: Request) -> Any:
        """Returns the user who sent a request; None if the request has no user."""
        return self._identify(request).user

    @property
    def loader(self) -> flask_login.Loader | None:
        """The app's function that loads a user by an id, or None if the app cannot load users.

        The function returns None for an unknown id.
        """
        return self._hooks.load_user or flask_login.loader(self._app)

    @property
    def rule(self) -> Authorize | None:
        """The function given to `@sse.authorize`; None if the app has none."""
        return self._hooks.authorize

    def check_admin(self, request: Request) -> Identity:
        """Returns the identity of a request whose user the function given to `@sse.authorize_admin` allows.

        :raises NotFound: if the app has registered no such function.
        :raises Refused: 401 or 403, if the function does not allow the user.
        """
        is_admin = self._hooks.authorize_admin or abort(404)
        identity = self._identify(request)
        if not is_admin(identity.user):
            raise self.refusal(identity.user, "only admins may do this")
        return identity

    def admin_tokens(self, identity: Identity) -> AdminTokens | None:
        """Returns the maker and checker of tokens for an admin's writes; None without a `SECRET_KEY`."""
        whose = (self.settings.prefix, self.user_id(identity.user), identity.session)
        return AdminTokens(self._keys(), whose) if self._app.secret_key else None

    # -- rules for channels ------------------------------------------------------------------------------

    def may_listen(self, user: Any, channel: str) -> bool:
        """Returns whether `user` may listen to `channel`. A channel that no rule allows is forbidden.

        :param user: a user object; None stands for a visitor without a user.
        """
        if self.settings.policies[channel].public:
            return True
        if channel == ADMIN_CHANNEL:
            is_admin = self._hooks.authorize_admin
            return is_admin is not None and bool(is_admin(user))
        own = self.user_id(user)
        if own is not None and channel == f"user:{own}":
            return True
        authorize = self._hooks.authorize
        return authorize is not None and bool(authorize(user, channel))

    def check(self, user: Any, channels: Iterable[str]) -> None:
        """Checks that `user` may listen to all `channels`.

        :raises Refused: 401 or 403, if a channel is forbidden; the message names the first forbidden channel.
        """
        for channel in channels:
            if not self.may_listen(user, channel):
                raise self._channel_refusal(user, channel)

    # -- finding the user of a request -------------------------------------------------------------------

    def _identify(self, request: Request) -> Identity:
        own = self._hooks.identify
        found = first_found(own, request) if own else flask_login.session_identity(request)
        if isinstance(found, Identity):
            return self._in_session(found)
        return NOBODY if found is None else self._renewable(found)

    def _in_session(self, identity: Identity) -> Identity:
        """Returns the identity with the name of the user's session, if flask-login knows the session."""
        refuse_expired(identity)
        if identity.session is not None or not flask_login.is_used(self._app):
            return identity
        return replace(identity, session=flask_login.session_name(self._app, identity.user))

    def _renewable(self, user: Any) -> Identity:
        """Returns the identity of a user object. Rechecks load the user again, if the app has `load_user`."""
        id, load = self.user_id(user), self._hooks.load_user
        renew = None if load is None or id is None else partial(load, id)
        return Identity(user, renew=renew, session=flask_login.session_name(self._app, user))

    def _ticket_identity(self, ticket: Ticket) -> Identity:
        """Returns the identity of a ticket's user. If the app cannot load users, the user is just the id."""
        load, id = self._hooks.load_user, ticket.user_id
        if load is None:
            load, id = flask_login.loader(self._app), ticket.login_id
        if ticket.user_id is None or id is None or load is None:
            return Identity(ticket.user_id, session=ticket.session)
        user = load(id)
        if user is None:
            raise invalid_ticket()
        return Identity(user, renew=partial(load, id), session=ticket.session)

    # -- the app's secret keys ---------------------------------------------------------------------------

    def check_pass(self, request: Request) -> None:
        """Checks that a request has a pass, which takes the app's secret key to make.

        :raises Refused: 403, if it does not.
        """
        if not doctor_pass.is_valid(self._keys(), request.headers.get(doctor_pass.HEADER, "")):
            text = "the request has no valid pass of `flask sse doctor`, made with the app's SECRET_KEY"
            raise Refused(403, ErrorCode.PERMISSION_DENIED, text)

    def digest(self, text: str) -> str:
        """Returns a text that is the same for the same `text` and secret key; see `doctor_pass.digest`."""
        return doctor_pass.digest(self._keys(), text)

    def _tickets(self) -> Tickets:
        keys = self._keys()
        if not keys[-1]:
            raise ConfigError("SECRET_KEY", keys[-1], "a secret text, because tickets are signed with it")
        return tickets_signed_with(keys, self.settings.prefix)

    def _keys(self) -> tuple[Any, ...]:
        """Returns the app's current secret keys, the newest last."""
        return (*(self._app.config.get("SECRET_KEY_FALLBACKS") or ()), self._app.secret_key)
