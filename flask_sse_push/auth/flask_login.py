"""What is taken from flask-login, where the app has it: the session's user, and how to load one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

from flask import Flask, Request, Response, after_this_request, current_app, has_request_context

from .identity import Identity, user_id

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


def end_streams_at_logout(app: Flask, log_out: Callable[[str], None]) -> None:
    """Calls `log_out(user_id)` at every logout from `app`, so that the user's streams end on all workers."""
    on_logout(app, partial(_logged_out, log_out))


def _logged_out(log_out: Callable[[str], None], app: Flask, user: Any, **extra: Any) -> None:
    id = user_id(user)
    if id is None:
        return
    log_out(id)
    if has_request_context():
        # Until the browser has the answer, its other tabs reconnect with a session that still looks good.
        after_this_request(partial(_call_when_sent, partial(log_out, id)))


def _call_when_sent(function: Callable[[], None], response: Response) -> Response:
    response.call_on_close(function)
    return response
