"""A run as the body of one response. No event is stored, and the run ends when the client leaves."""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Iterator

from ..hub.callbacks import CallbackFailed, calling
from ..protocol.data import Dumps
from ..protocol.event import make_event
from ..protocol.frames import close_frame
from .output import BEGIN, END, Items, end_data, event_of
from .producer import DONE, FAILED, iterating

logger = logging.getLogger(__name__)


def run_body(items: Items, dumps: Dumps) -> Iterator[bytes]:
    """Yields the frames of a run: `run.begin`, an event for each item, `run.end`, and a last `sse.close`.

    The `sse.close` keeps clients from connecting again.

    :param dumps: turns the data of an item into JSON.
    """
    run = secrets.token_urlsafe(9)
    yield make_event({"run": run}, BEGIN).encode()
    end = end_data(run, DONE)
    try:
        with iterating(items) as iterable:
            for item in iterable:
                kind, data = event_of(item)
                yield make_event(data, kind, dumps=dumps).encode()
    except GeneratorExit:  # the client has left
        raise
    except BaseException as error:
        with contextlib.suppress(CallbackFailed), calling("producer", items, whatever=True):
            raise
        logger.error("the producer of a response failed: %r", error)
        end = end_data(run, FAILED, type(error).__name__)
    yield make_event(end, END).encode() + close_frame("done", reconnect=False, retry=1.0)
