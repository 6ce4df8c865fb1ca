"""What is taken from flask-login, where the app has it: the session's user, and how to load one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

from flask import Flask, Request, current_app

from .auth import Identity

#: Returns the user of an id, or None.
Loader = Callable[[str], Any]


def session_identity(request: Request) -> Identity | None:
    """Who is signed in with the request's session; None for nobody, and in apps without flask-login.

    What is asked when the app gives nothing to `@sse.identify`; may be given to it beside others.
    """
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    if not is_used(app):
        return None
    from flask_login import current_user

    if not current_user.is_authenticated:
        return None
    user = current_user._get_current_object()
    load = loader(app)
    return Identity(user, renew=partial(load, user.get_id()) if load else None)


def loader(app: Flask) -> Loader | None:
    """The app's `user_loader`, which no longer knows users who were switched off; None without one."""
    load = getattr(vars(app).get("login_manager"), "_user_callback", None)
    return partial(_load_active, load) if load else None


def is_used(app: Flask) -> bool:
    """Whether the app has a flask-login LoginManager."""
    return "login_manager" in vars(app)


def on_logout(app: Flask, receiver: Callable[..., None]) -> None:
    """Has `receiver(app, user=…)` called when a user logs out, in the request that does it."""
    with contextlib.suppress(ImportError):  # then nobody logs in, either
        from flask_login import user_logged_out

        user_logged_out.connect(receiver, sender=app, weak=False)


def _load_active(load: Loader, id: str) -> Any:
    user = load(id)
    return user if user is not None and user.is_active else None
