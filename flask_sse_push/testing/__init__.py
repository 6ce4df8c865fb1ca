"""Tools for the tests of apps that use this package: streams are read through Flask's test client.

Every wait has a deadline. Nothing is mocked: the app runs on the in-memory broker, which keeps the same
promises as Redis. The pytest plugin with the fixtures `sse_app`, `sse_client` and `sse_clock` is the module
`pytest_flask_sse_push`, beside the package.
"""

from __future__ import annotations

from .client import EventStream, NoEvent, SSEClient, StreamRefused, read_events
from .events import Event, Parser
from .memory import FakeClock, in_memory, published

__all__ = [
    "Event",
    "EventStream",
    "FakeClock",
    "NoEvent",
    "Parser",
    "SSEClient",
    "StreamRefused",
    "in_memory",
    "published",
    "read_events",
]
