"""Support for apps that use flask-login: finds and loads users, and ends their streams at logout."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

from flask import Flask, Request, Response, after_this_request, current_app, has_request_context

from .identity import Identity, user_id

#: A function that takes a user id and returns the user, or None if there is no such user.
Loader = Callable[[str], Any]


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
    return Identity(user, renew=partial(load, user.get_id()) if load else None)


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


def end_streams_at_logout(app: Flask, log_out: Callable[[str], None]) -> None:
    """Makes every request that logs a user out of `app` call `log_out(user_id)`."""
    with contextlib.suppress(ImportError):  # without flask-login there are no logouts to react to
        from flask_login import user_logged_out

        user_logged_out.connect(partial(_logged_out, log_out), sender=app, weak=False)


def _logged_out(log_out: Callable[[str], None], app: Flask, user: Any, **extra: Any) -> None:
    id = user_id(user)
    if id is None:
        return
    log_out(id)
    if has_request_context():
        # Until the browser has this response, its other tabs may still connect with the old session. So
        # `log_out` runs a second time, after the response.
        after_this_request(partial(_call_when_sent, partial(log_out, id)))


def _call_when_sent(function: Callable[[], None], response: Response) -> Response:
    response.call_on_close(function)
    return response
