"""Collects the spans of this process, or writes those of a server's processes to a file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


class FileExporter(SpanExporter):
    """Appends each span to a file that several processes share, as one line of JSON."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with self._file.open("a") as output:
            for span in spans:
                output.write(json.dumps(fields(span)) + "\n")
        return SpanExportResult.SUCCESS


def fields(span: ReadableSpan) -> dict[str, Any]:
    """What the tests look at."""
    assert span.context is not None
    assert span.start_time is not None
    assert span.end_time is not None
    return {
        "name": span.name,
        "trace": span.context.trace_id,
        "id": span.context.span_id,
        "parent": None if span.parent is None else span.parent.span_id,
        "start": span.start_time / 1e9,
        "end": span.end_time / 1e9,
        "pid": os.getpid(),
    }


def provide(exporter: SpanExporter) -> TracerProvider:
    """Makes the process export its spans. A process has one provider."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return provider


_memory: list[InMemorySpanExporter] = []


@contextmanager
def collected() -> Iterator[InMemorySpanExporter]:
    """Collects the spans of this process until the block ends."""
    if not _memory:
        _memory.append(InMemorySpanExporter())
        provide(_memory[0])
    _memory[0].clear()
    yield _memory[0]


@contextmanager
def view() -> Iterator[None]:
    """The span of a view, as the app's own tracing makes it."""
    with trace.get_tracer("app").start_as_current_span("view"):
        yield
