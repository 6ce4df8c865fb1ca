"""The example: an ordinary Flask app with a login, to which live events were added.

flask --app example_app run --debug     one process, for development
make demo                               gunicorn with one worker per core
"""

from __future__ import annotations

import hmac
import os
import secrets
from typing import Any

from flask import Flask, has_request_context, redirect, request, url_for
from werkzeug import Response

from flask_sse_push import sse

from . import (
    activity,
    assistant,
    board,
    broker,
    dashboard,
    debug,
    errors,
    issuer,
    live,
    logs,
    messages,
    notifications,
    orders,
    rooms,
    security,
    signin,
    start,
    stock,
    timer,
    tracing,
)
from .channels import CHANNELS
from .page import Page

#: The pages by their names in the navigation. Each page is a folder; README.md describes its files.
PAGES: dict[str, Page] = {
    "Start": start.page,
    "Live": live.page,
    "AI chat": assistant.page,
    "Order": orders.page,
    "Board": board.page,
    "Stock": stock.page,
    "Timer": timer.page,
    "Activity": activity.page,
    "Rooms": rooms.page,
    "Messages": messages.page,
    "Notifications": notifications.page,
    "Dashboard": dashboard.page,
    "Logs": logs.page,
    "Debug": debug.page,
}

#: Seconds that a user stays present after their last stream closes, so that a reload does not look like
#: leaving.
PRESENCE_GRACE = 3.0


def create_app(config: dict[str, Any] | None = None) -> Flask:
    """Returns the app. Settings come from `config`, else from the environment, else from the defaults
    below."""
    app = Flask(__name__)
    # All workers need the same key. gunicorn.conf.py puts one into the environment before the workers start.
    app.config["SECRET_KEY"] = os.environ.get("SECRET_KEY") or secrets.token_hex()
    app.config["SESSION_COOKIE_SAMESITE"] = "Lax"
    app.config["SSE_PUSH_CHANNELS"] = CHANNELS
    app.config["SSE_PUSH_PRESENCE_GRACE"] = PRESENCE_GRACE
    app.config["SSE_PUSH_BROKER_URL"] = broker.url()
    app.config.update(config or {})

    if file := logs.logfile.path():
        logs.logfile.write(file)
    tracing.trace_requests(app)
    security.protect(app)
    signin.login_manager.init_app(app)
    stock.shelf.init_app(app)
    app.register_blueprint(signin.page)
    app.register_blueprint(issuer.page)
    for page in PAGES.values():
        app.register_blueprint(page)
    app.register_blueprint(sse, url_prefix="/stream")
    errors.handle(app)
    app.context_processor(
        lambda: {"pages": PAGES, "demo_users": signin.USERS, "demo_passwords": signin.DEMO_PASSWORDS}
    )
    app.add_url_rule("/", "home", _home)
    return app


@sse.authorize
def may_listen(user: signin.User | None, channel: str) -> bool:
    """Whether a user may listen to a channel that is not public: one of the pages must allow it.

    The package opens `user:<id>` to that user itself, without calling this function.
    """
    return user is not None and any(
        page.may_see(user) and page.allows(user, channel) for page in PAGES.values()
    )


@sse.authorize_admin
def is_admin(user: signin.User | None) -> bool:
    """Whether a user may use the admin page, and read the statistics and the health of the workers.

    Prometheus may read them too, if it sends the password in EXAMPLE_SCRAPE_PASSWORD. The package also calls
    this function outside requests, to check open streams again.
    """
    wanted = os.environ.get("EXAMPLE_SCRAPE_PASSWORD")
    sent = request.authorization if has_request_context() else None
    if wanted and sent and hmac.compare_digest((sent.password or "").encode(), wanted.encode()):
        return True
    return user is not None and user.is_admin


def _home() -> Response:
    return redirect(url_for("start.show"))
