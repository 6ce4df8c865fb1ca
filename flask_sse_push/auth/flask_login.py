"""Support for apps that use flask-login: finds and loads users, and ends their streams at logout."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable
from functools import partial
from typing import Any

from flask import (
    Flask,
    Request,
    Response,
    after_this_request,
    current_app,
    g,
    has_request_context,
    request,
    session,
)

from .identity import Identity, login_id

#: A function that takes a user id and returns the user, or None if there is no such user.
Loader = Callable[[str], Any]

#: The key in Flask's session under which a login stores a pair: a name for the session, and the id by which
#: flask-login finds the user.
SESSION = "_sse_push_session"


def session_identity(request: Request) -> Identity | None:
    """Returns the identity of the user who is signed in with flask-login; None if nobody is signed in.

    In an app without flask-login, nobody is ever signed in.

    An app that registers no function with `@sse.identify` uses this function. An app that registers functions
    may register this function too.
    """
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    if not hasattr(app, "login_manager"):  # asking the proxy `current_app` would take 100 times as long
        return None
    from flask_login import current_user

    if not current_user.is_authenticated:
        return None
    user = current_user._get_current_object()
    load = loader(app)
    renew = partial(load, user.get_id()) if load else None
    return Identity(user, renew=renew, session=session_name(app, user))


def is_used(app: Flask) -> bool:
    """Whether the app has a flask-login LoginManager."""
    return hasattr(app, "login_manager")


def loader(app: Flask) -> Loader | None:
    """Returns a function that calls the app's `user_loader` and returns None for users who are not active.

    Returns None if the app has no `user_loader`.
    """
    load = getattr(getattr(app, "login_manager", None), "_user_callback", None)
    return partial(_load_active, load) if load else None


def _load_active(load: Loader, id: str) -> Any:
    user = load(id)
    return user if user is not None and user.is_active else None


def session_name(app: Flask, user: Any) -> str | None:
    """Returns the name that the session of a user got at the login; None if it has no name."""
    if not (is_used(app) and has_request_context()):
        return None
    name, known_by = session.get(SESSION) or (None, None)
    return name if name is not None and login_id(user) == known_by else None


def end_streams(app: Flask, user_id: Callable[[Any], str | None], log_out: Callable[..., None]) -> None:
    """Makes every request that logs a user out of `app` call `log_out(user_id=…)`.

    A request that logs another user in with the same session calls `log_out(session=…)`.
    """
    with contextlib.suppress(ImportError):  # without flask-login there are no logouts to react to
        from flask_login import user_loaded_from_cookie, user_logged_in, user_logged_out

        user_logged_out.connect(partial(_logged_out, user_id, log_out), sender=app, weak=False)
        for signal in (user_logged_in, user_loaded_from_cookie):
            signal.connect(partial(_logged_in, log_out), sender=app, weak=False)


def _logged_out(
    user_id: Callable[[Any], str | None], log_out: Callable[..., None], app: Flask, user: Any, **extra: Any
) -> None:
    id = user_id(user)
    if id is None:
        return
    log_out(user_id=id)
    if has_request_context():
        known = _known_session(app)
        session.pop(SESSION, None)
        setattr(g, SESSION, True)  # a login in this request begins another session
        # The user may log in again at once. So after the response only the streams of the old session end.
        _when_sent(partial(log_out, session=known[0]) if known else partial(log_out, user_id=id))


def _logged_in(log_out: Callable[..., None], app: Flask, user: Any, **extra: Any) -> None:
    """Gives the session a name of its own. Ends the streams of another user who used the session before."""
    if not has_request_context():
        return
    known, known_by = _known_session(app), login_id(user)
    if known and known[1] == known_by:
        session[SESSION] = known
        return
    session[SESSION] = [secrets.token_urlsafe(12), known_by]
    if known:
        log_out(session=known[0])
        _when_sent(partial(log_out, session=known[0]))


def _known_session(app: Flask) -> Any:
    """Returns the pair under SESSION that the request came with; None if there is none, or after a logout."""
    if g.get(SESSION):
        return session.get(SESSION)
    # An app may empty the session before the login or logout, so this reads the cookie of the request again.
    before: Any = app.session_interface.open_session(app, request) or {}
    return session.get(SESSION) or before.get(SESSION)


def _when_sent(function: Callable[[], None]) -> None:
    """Calls a function after the response of the current request.

    Until the browser has the response, its other tabs may still connect with the old session.
    """
    after_this_request(partial(_call_when_sent, function))


def _call_when_sent(function: Callable[[], None], response: Response) -> Response:
    response.call_on_close(function)
    return response
