"""Protects and logs the writes of admins: no page of another site can make a browser send one (CSRF)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from flask import current_app

from ...auth.admin_tokens import HEADER
from ...errors import ErrorCode, Refused
from ..cors import check_own_page
from .visit import Visit, shown

logger = logging.getLogger(__name__)

NO_KEY = (
    "the app has no SECRET_KEY, which signs the token of each write: set app.secret_key to a secret text "
    "that all workers share"
)


def headers(visit: Visit) -> dict[str, str] | None:
    """Returns the headers that the page sends with each write; None if the app has no `SECRET_KEY`.

    In an app with Flask-WTF's `CSRFProtect`, one of the headers has the token that `CSRFProtect` wants.
    """
    tokens = visit.endpoint.policy.admin_tokens(visit.identity)
    if tokens is None:
        return None
    found = {HEADER: tokens.make()}
    make = current_app.jinja_env.globals.get("csrf_token")
    if "csrf" in current_app.extensions and callable(make):
        names: Any = current_app.config.get("WTF_CSRF_HEADERS") or ["X-CSRFToken"]
        found[str(names[0])] = str(make())
    return found


def check(visit: Visit) -> None:
    """Checks that the admin's own page sent a write.

    :raises Refused: 403, if another page may have sent it, or if its token is missing, too old, or made for
        another user or session.
    """
    check_own_page(visit.request)
    tokens = visit.endpoint.policy.admin_tokens(visit.identity)
    if tokens is None:
        raise Refused(403, ErrorCode.PERMISSION_DENIED, NO_KEY)
    if not tokens.is_valid(visit.request.headers.get(HEADER, "")):
        message = (
            f"the write has no valid token in the header {HEADER}: get admin/session again, and send the "
            "headers that its write_headers has"
        )
        raise Refused(403, ErrorCode.PERMISSION_DENIED, message, details={"csrf": True})


def note(visit: Visit, action: str, target: str, **more: object) -> None:
    """Logs a write: who did what to what. The level is WARNING, which most apps log."""
    user, address = shown(visit.user_id), shown(visit.request.remote_addr)
    facts = {"user": user, "action": action, "target": shown(target), **more}
    extra = {"event": "admin_write", **facts, "address": address}
    text = "admin_write: %r at %s %s %r (%s)"
    logger.warning(text, user, address, action, facts["target"], _pairs(more), extra=extra)


def _pairs(more: Mapping[str, object]) -> str:
    return ", ".join(f"{key}={value}" for key, value in more.items())
