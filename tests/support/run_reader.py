"""A client that reads a run of `tests.apps.runs` in the format `ai-sdk`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

from tests.support.deadline import eventually, stretched
from tests.support.processes import Gunicorn
from tests.support.stream import Stream

#: Seconds after which a stream counts as silent; a killed worker is noticed after up to 20 seconds.
LOST = stretched(40)


class RunReader:
    """One response with a run."""

    def __init__(self, server: Gunicorn, key: str, version: str = "1.1") -> None:
        self.stream = Stream(f"{server.url}/read/{key}/ai-sdk", timeout=LOST, version=version)
        self.worker = int(self.stream.headers.get("x-worker", "0"))
        self.chunks: list[dict[str, Any]] = []
        self.is_done = False  # whether `[DONE]` has come

    @property
    def text(self) -> str:
        return "".join(chunk["delta"] for chunk in self.chunks if chunk["type"] == "text-delta")

    def read(self, enough: Callable[[], bool] = lambda: False) -> RunReader:
        """Reads until `enough` is true, or until the body ends or breaks off."""
        with contextlib.suppress(OSError, EOFError, StopIteration):
            while not enough():
                event = self.stream.next()
                assert event.type == "message"
                if event.data == "[DONE]":
                    self.is_done = True
                else:
                    self.chunks.append(json.loads(event.data))
        return self

    def read_text(self) -> RunReader:
        """Reads until some text has come."""
        return self.read(lambda: bool(self.text))


def reader_on(server: Gunicorn, key: str, is_wanted: Callable[[int], bool]) -> RunReader:
    """Returns a reader whose worker is a wanted one, and which has read some text."""

    def found() -> RunReader | None:
        reader = RunReader(server, key)
        return reader if is_wanted(reader.worker) else None

    reader = eventually(found)
    assert reader is not None
    return reader.read_text()
