"""Server-Sent Events for Flask.

from flask_sse_push import sse
app.register_blueprint(sse, url_prefix="/stream")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .auth.bearer import BearerJWT
from .auth.identity import Identity
from .blueprint import SSEBlueprint
from .brokers.announcer import MessageAnnouncer
from .errors import (
    BrokerUnavailable,
    ConfigError,
    ErrorCode,
    InvalidEvent,
    InvalidPayload,
    MessageTooLarge,
    SSEPushError,
)
from .monitoring.signals import event_published, history_lost, stream_closed, stream_opened
from .web.flask_sse import Message

if TYPE_CHECKING:
    from .web import turbo

__version__ = "0.1.0"

#: A blueprint that is ready to use: an `SSEBlueprint` named `sse`. Most apps need only this blueprint.
sse = SSEBlueprint("sse")

#: The name of `SSEBlueprint` in the package Flask-SSE.
ServerSentEventsBlueprint = SSEBlueprint

__all__ = [
    "BearerJWT",
    "BrokerUnavailable",
    "ConfigError",
    "ErrorCode",
    "Identity",
    "InvalidEvent",
    "InvalidPayload",
    "Message",
    "MessageAnnouncer",
    "MessageTooLarge",
    "SSEBlueprint",
    "SSEPushError",
    "ServerSentEventsBlueprint",
    "__version__",
    "event_published",
    "history_lost",
    "sse",
    "stream_closed",
    "stream_opened",
    "turbo",
]


def __getattr__(name: str) -> Any:
    """Imports the module `turbo` when it is first used."""
    if name != "turbo":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .web import turbo

    return turbo
