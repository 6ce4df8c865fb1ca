"""Reads the events that the package datastar-py makes, so that they are published unchanged.

`ServerSentEventGenerator` of datastar-py returns each event as the lines of an event stream, in a string of
the class `DatastarEvent`. This module does not import datastar-py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..errors import InvalidEvent, shown

#: Name of the class of the events, which each version of datastar-py has since 0.5.
CLASS = "DatastarEvent"
#: Each event begins with this text, also the first and the second of several events joined with `+`.
BEGIN = "event: datastar-"
SEVERAL = "has several events of datastar-py; publish each of them, for example with sse.publish_many"


class Fields(NamedTuple):
    """The arguments of `publish` that an event of datastar-py stands for."""

    data: str
    type: str
    retry: int | None


def check_no_list(data: Sequence[object]) -> None:
    """Checks that `data` is no list of events of datastar-py.

    :raises InvalidEvent: if the first value is such an event.
    """
    if data and data[0].__class__.__name__ == CLASS:
        raise InvalidEvent("data", SEVERAL)


def fields(lines: str, type: str | None, retry: int | None) -> Fields:
    """Returns the fields of an event of datastar-py.

    :param lines: the event, such as "event: datastar-patch-elements\\ndata: elements <p>hello</p>\\n\\n".
    :param type: the type that was given to `publish`.
    :param retry: the reconnection time that was given to `publish`; it counts before the event's own.
    :raises InvalidEvent: if the event has an id, since the server gives each event its cursor as its id; if a
        type was given to `publish`; or if a line is not one that datastar-py writes.
    """
    data, own_type = [], None
    for line in lines.removesuffix("\n\n").split("\n"):
        field, _, value = line.partition(": ")
        if field == "data" or line == "data:":
            data.append(value)
        elif field == "event":
            own_type = value
        elif field == "retry" and value.isascii() and value.isdigit() and len(value) < 12:
            retry = int(value) if retry is None else retry
        elif field == "id":
            raise InvalidEvent(
                "data",
                f"is an event of datastar-py with the id {shown(value)}, but the server gives each event its "
                "own id; leave out `event_id`. To publish an event only once, use `sse.publish(…, id=…)`",
            )
        else:
            raise InvalidEvent(
                "data", f"is an event of datastar-py with the line {shown(line)}; a selector has no line ends"
            )
    if own_type is None:
        raise InvalidEvent("data", "is an event of datastar-py without its line `event:`")
    if type is not None:
        raise InvalidEvent(
            "type", f"is {shown(type)}, but the event of datastar-py has the type {own_type!r}"
        )
    return Fields("\n".join(data), own_type, retry)
