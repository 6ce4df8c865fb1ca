"""A run as the body of one response. No event is stored, and the run ends when the client leaves."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from typing import Any

from ..protocol.data import Dumps
from ..protocol.event import make_event
from ..protocol.frames import close_frame
from .output import BEGIN, END, Items, end_data, event_of
from .producer import DONE, FAILED, iterating

logger = logging.getLogger(__name__)


def run_body(items: Items, dumps: Dumps) -> Iterator[bytes]:
    """Yields the frames of a run: `run.begin`, an event for each item, `run.end`, and a last `sse.close`.

    The `sse.close` keeps clients from connecting again.

    :param dumps: turns the data of an event into JSON.
    """

    def frame(type: str, data: Any) -> bytes:
        return make_event(data, type, dumps=dumps).encode()

    run = secrets.token_urlsafe(9)
    yield frame(BEGIN, {"run": run})
    end = end_data(run, DONE)
    try:
        with iterating(items) as iterable:
            for item in iterable:
                yield frame(*event_of(item))
    except Exception as error:
        logger.exception("the producer of a response failed")
        end = end_data(run, FAILED, type(error).__name__)
    yield frame(END, end) + close_frame("done", reconnect=False, retry=1.0)
