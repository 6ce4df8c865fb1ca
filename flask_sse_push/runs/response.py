"""A run as the body of one response. No event is stored, and the run ends when the client leaves."""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Iterator
from typing import Any, Protocol

from ..hub.callbacks import CallbackFailed, calling
from ..protocol.data import Dumps
from ..protocol.event import make_event
from ..protocol.frames import close_frame
from .output import BEGIN, END, Items, end_data, event_of
from .producer import DONE, FAILED, iterating

logger = logging.getLogger(__name__)


class BodyFormat(Protocol):
    """How the body is written. A part that the format leaves out is b""."""

    def begin(self, run: str) -> bytes:
        """Returns the beginning of the body. `run` is the id of the run."""

    def item(self, item: Any) -> bytes:
        """Returns the part for an item that the producer yielded.

        :raises InvalidEvent: if the item cannot be sent.
        """

    def end(self, run: str, status: str, error: str | None) -> bytes:
        """Returns the end of the body; see `end_data`."""


class EventFormat:
    """Writes the events of a run: `run.begin`, an event for each item, `run.end`, and a last `sse.close`.

    The `sse.close` keeps clients from connecting again.

    :param dumps: turns the data of an item into JSON.
    """

    def __init__(self, dumps: Dumps) -> None:
        self._dumps = dumps

    def begin(self, run: str) -> bytes:
        return make_event({"run": run}, BEGIN).encode()

    def item(self, item: Any) -> bytes:
        type, data = event_of(item)
        return make_event(data, type, dumps=self._dumps).encode()

    def end(self, run: str, status: str, error: str | None) -> bytes:
        last = make_event(end_data(run, status, error), END).encode()
        return last + close_frame("done", reconnect=False, retry=1.0)


def run_body(items: Items, form: BodyFormat) -> Iterator[bytes]:
    """Yields the response body of a run: its beginning, its items, its end."""
    run = secrets.token_urlsafe(9)
    yield form.begin(run)
    status: str = DONE
    failed: str | None = None
    try:
        with iterating(items) as iterable:
            for item in iterable:
                part = form.item(item)
                if part:
                    yield part
    except GeneratorExit:  # the client has left
        raise
    except BaseException as error:
        with contextlib.suppress(CallbackFailed), calling("producer", items, whatever=True):
            raise
        logger.error("the producer of a response failed: %r", error)
        status, failed = FAILED, type(error).__name__
    yield form.end(run, status, failed)
