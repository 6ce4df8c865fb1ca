"""The logout by flask-login, which ends a user's streams on all workers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from flask import Flask, Response, after_this_request, has_request_context

from . import access, login
from .control import REVOKE
from .errors import BrokerUnavailable
from .runtime import Runtime

logger = logging.getLogger(__name__)


def watch(app: Flask, runtime: Runtime) -> None:
    """Has every logout from `app` end the user's streams. The logout itself never fails by it."""
    login.on_logout(app, partial(_logged_out, runtime))


def _logged_out(runtime: Runtime, app: Flask, user: Any, **extra: Any) -> None:
    id = access.user_id(user)
    if id is None:
        return
    tell = partial(_tell, runtime, id)
    tell()
    if has_request_context():
        # Until the browser has the answer, its other tabs come back with a session that still looks good.
        after_this_request(partial(_call_when_sent, tell))


def _tell(runtime: Runtime, user_id: str) -> None:
    arguments = {"user_id": user_id, "channel": None, "reason": "logout"}
    try:
        runtime.announcer.command(REVOKE, **arguments)
    except BrokerUnavailable as error:
        logger.warning("a logout will be told to the other workers later: %s", error)
        runtime.guard.revoke_later(**arguments)


def _call_when_sent(function: Callable[[], None], response: Response) -> Response:
    response.call_on_close(function)
    return response
