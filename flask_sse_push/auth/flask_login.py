"""Uses flask-login where the app has it: finds and loads users, and ends their streams at logout."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

from flask import Flask, Request, Response, after_this_request, current_app, has_request_context

from .identity import Identity, user_id

#: Returns the user with an id, or None.
Loader = Callable[[str], Any]


def session_identity(request: Request) -> Identity | None:
    """Returns who is signed in by the request's session; None for nobody, and in apps without flask-login.

    `@sse.identify` takes it beside other functions. An app that registers none gets this one.
    """
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    if not hasattr(app, "login_manager"):  # on the proxy, this takes 100 times as long
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
    """Returns the app's `user_loader`, with None for users who are not active; None without a loader."""
    load = getattr(getattr(app, "login_manager", None), "_user_callback", None)
    return partial(_load_active, load) if load else None


def _load_active(load: Loader, id: str) -> Any:
    user = load(id)
    return user if user is not None and user.is_active else None


def end_streams_at_logout(app: Flask, log_out: Callable[[str], None]) -> None:
    """Has `log_out(user_id)` called at every logout from `app`, by the request that logs the user out."""
    with contextlib.suppress(ImportError):  # without flask-login nobody logs out
        from flask_login import user_logged_out

        user_logged_out.connect(partial(_logged_out, log_out), sender=app, weak=False)


def _logged_out(log_out: Callable[[str], None], app: Flask, user: Any, **extra: Any) -> None:
    id = user_id(user)
    if id is None:
        return
    log_out(id)
    if has_request_context():
        # The browser's other tabs may reconnect with the old session until it has the response.
        after_this_request(partial(_call_when_sent, partial(log_out, id)))


def _call_when_sent(function: Callable[[], None], response: Response) -> Response:
    response.call_on_close(function)
    return response
