"""Writes a run as the body of one response in a format."""

from __future__ import annotations

import json
import time
from typing import Any

from ...protocol.data import Dumps, json_text
from ..output import event_of
from .writer import RunFacts, Writer, written


class FormatBody:
    """Writes a run in a format, for `run_body`. The run has no key, so its id stands for the key too.

    :param writer: the format.
    :param dumps: turns the data of an item into JSON.
    """

    def __init__(self, writer: type[Writer], dumps: Dumps) -> None:
        self._make_writer = writer
        self._dumps = dumps

    def begin(self, run: str) -> bytes:
        self._writer = self._make_writer(RunFacts(run, run, int(time.time())))
        return written(self._writer.begin())

    def item(self, item: Any) -> bytes:
        type, data = event_of(item)
        return written(self._writer.item(type, json.loads(json_text(data, self._dumps))))

    def end(self, run: str, status: str, error: str | None) -> bytes:
        return written(self._writer.end(status, error)) + self._writer.mark()
