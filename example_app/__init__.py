"""The example: an ordinary Flask app with a login, to which live events were added.

flask --app example_app run --debug     one process, at the desk
make demo                               gunicorn with a worker for each core
"""

from __future__ import annotations

import os
import secrets
from typing import Any

from flask import Flask, redirect, url_for
from werkzeug import Response

from flask_sse_push import sse

from . import (
    activity,
    assistant,
    broker,
    dashboard,
    debug,
    live,
    logs,
    messages,
    notifications,
    orders,
    rooms,
    security,
    signin,
    timer,
)
from .page import Page

#: One folder a page; README.md says what is in it. The names are those of the navigation.
PAGES: dict[str, Page] = {
    "Live": live.page,
    "AI chat": assistant.page,
    "Order": orders.page,
    "Timer": timer.page,
    "Activity": activity.page,
    "Rooms": rooms.page,
    "Messages": messages.page,
    "Notifications": notifications.page,
    "Dashboard": dashboard.page,
    "Logs": logs.page,
    "Debug": debug.page,
}

#: Open to everybody; for all other channels `may_listen` is asked.
PUBLIC_CHANNELS = ("news", "ticks")
#: Seconds in which a page can be loaded again without its user having left.
PRESENCE_GRACE = 3.0


def create_app(config: dict[str, Any] | None = None) -> Flask:
    """The app. Settings come from `config`, else from the environment, else from here."""
    app = Flask(__name__)
    # Workers must agree on the key, and do when the master has put one into the environment.
    app.config["SECRET_KEY"] = os.environ.get("SECRET_KEY") or secrets.token_hex()
    app.config["SESSION_COOKIE_SAMESITE"] = "Lax"
    app.config["SSE_PUSH_PUBLIC_CHANNELS"] = PUBLIC_CHANNELS
    app.config["SSE_PUSH_PRESENCE_CHANNELS"] = rooms.PRESENCE_CHANNELS
    app.config["SSE_PUSH_PRESENCE_GRACE"] = PRESENCE_GRACE
    app.config["SSE_PUSH_BROKER_URL"] = broker.url()
    app.config.update(config or {})

    if file := logs.logfile.path():
        logs.logfile.write(file)
    security.protect(app)
    signin.login_manager.init_app(app)
    app.register_blueprint(signin.page)
    for page in PAGES.values():
        app.register_blueprint(page)
    app.register_blueprint(sse, url_prefix="/stream")
    app.context_processor(lambda: {"pages": PAGES})
    app.add_url_rule("/", "home", _home)
    return app


@sse.authorize
def may_listen(user: signin.User | None, channel: str) -> bool:
    """Who may listen to what is not public: the pages say. `user:<id>` is open to that user alone anyway."""
    return user is not None and any(
        page.may_see(user) and page.allows(user, channel) for page in PAGES.values()
    )


@sse.authorize_admin
def is_admin(user: signin.User | None) -> bool:
    """Who may ask for the figures and the health of the workers."""
    return user is not None and user.is_admin


def _home() -> Response:
    return redirect(url_for("live.show"))
