"""Writes the app's traces to a file, if the environment names one. A real app sends them to a collector."""

from __future__ import annotations

import os
from typing import Any

from flask import Flask, g, request


def trace_requests(app: Flask) -> None:
    """Makes a span of each request, and writes all spans of this process to the file EXAMPLE_SPANS.

    With SSE_PUSH_TRACE, the events that a request publishes are part of its trace.
    """
    name = os.environ.get("EXAMPLE_SPANS")
    if not name:
        return
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

    file = open(name, "a", buffering=1)  # noqa: SIM115 (the process writes to it until it ends)
    exporter = ConsoleSpanExporter(out=file, formatter=lambda span: span.to_json(indent=None) + "\n")
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    tracer = trace.get_tracer(app.name)

    @app.before_request
    def begin() -> None:
        if request.endpoint and request.blueprint != "sse":  # streams may take days
            g.span = tracer.start_as_current_span(f"{request.method} {request.endpoint}")
            g.span.__enter__()

    @app.teardown_request
    def end(error: Any) -> None:
        span = g.pop("span", None)
        if span is not None:
            span.__exit__(None, None, None)
