"""The pytest plugin under its former name, for environments that were installed before it moved."""

from pytest_flask_sse_push import sse_app, sse_client, sse_clock

__all__ = ["sse_app", "sse_client", "sse_clock"]
