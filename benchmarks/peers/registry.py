"""All servers under test, in the order of the tables."""

from __future__ import annotations

from .base import Peer
from .better_sse.driver import BetterSSE
from .broadcaster.driver import Broadcaster
from .empty_view.driver import EmptyView
from .flask_sse.driver import FlaskSSE
from .gevent_queue.driver import GeventQueue
from .nchan.driver import Nchan
from .push.driver import PushGenerator, PushHijack
from .sse_starlette.driver import SSEStarlette

PEERS: tuple[type[Peer], ...] = (
    Broadcaster,
    PushHijack,
    PushGenerator,
    Nchan,
    BetterSSE,
    GeventQueue,
    SSEStarlette,
    FlaskSSE,
    EmptyView,
)
