"""What a worker says about itself to `flask sse doctor`: its server, its settings and the request it got."""

from __future__ import annotations

import time
from dataclasses import fields
from typing import Any

from flask import Request

from ..auth.policy import Policy
from ..config import Settings
from ..transports import cost, wsgi_server


def self_report(policy: Policy, request: Request) -> dict[str, Any]:
    """Returns what this worker is. A digest stands for the broker's URL, which contains a password.

    :raises Refused: 403, if the request has no valid pass of the doctor.
    """
    policy.check_pass(request)
    environ, kind = request.environ, cost.cost_of(request.environ)
    blocks = kind in (cost.Cost.SERVER, cost.Cost.THREAD)
    return {
        "gunicorn": wsgi_server.configuration(),
        "server": cost.server_name(environ) or "unknown",
        "cost": kind.name,
        "problem": cost.explanation(kind, environ) if blocks else "",
        "protocol": environ.get("SERVER_PROTOCOL", ""),
        "settings": shown_settings(policy.settings),
        "broker": policy.digest(policy.settings.broker_url),
        "time": time.time(),
    }


def shown_settings(settings: Settings) -> dict[str, str]:
    """Returns each setting as text, by its key, without the broker's URL."""
    names = [spec.name for spec in fields(settings) if spec.name != "broker_url"]
    return {settings.key(name): repr(getattr(settings, name)) for name in names}
