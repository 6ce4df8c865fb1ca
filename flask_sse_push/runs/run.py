"""What `sse.start` returns: a run, as its starter sees it."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..errors import InvalidEvent, shown
from ..protocol.channel import checked_channel
from ..protocol.event import checked_once

#: The channel of a run is this prefix, followed by the key of the run.
PREFIX = "run:"
#: The longest id of a run.
MAX_ID = 100


@dataclass(frozen=True)
class Run:
    """The result of `SSEBlueprint.start`: a run that was started, or that was already going on."""

    key: str  #: the key of the run, for `SSEBlueprint.stop`
    channel: str  #: the channel on which the events of the run are published
    cursor: str  #: a stream opened with this cursor gets the whole run; `earliest` if `started` is False
    started: bool  #: False if a run with this key was already going on; the new producer was then not used
    #: Ids of runs: this run; or the runs under way if `started` is False, usually one.
    ids: tuple[str, ...] = field(default=(), repr=False)
    _format: str | None = field(default=None, repr=False, compare=False)  # what `sse.start` got
    _respond: Callable[[Run, str], Any] | None = field(default=None, repr=False, compare=False)

    @property
    def id(self) -> str | None:
        """The id of the run; None if `started` is False and it is not certain which run is going on."""
        return self.ids[0] if len(self.ids) == 1 else None

    def response(self, format: str | None = None) -> Any:
        """Returns a response that sends the run in the format of a front end, from the beginning to the end.

        The view that returns the response has decided who may read the run: `@sse.authorize` is not called.

        :param format: `ai-sdk`, `ag-ui` or `openai`. The default is the format that `sse.start` got.
        :raises ValueError: if there is no such format; the message names all formats. The run then goes on:
            give the format to `sse.start`, which checks it before the run starts.
        :raises TypeError: if neither this method nor `sse.start` got a format.
        :raises Refused: 429 or 503, as for any stream. Without a handler in the app, this is the response.
        """
        if self._respond is None:
            raise RuntimeError("only a run that sse.start has returned has a response")
        format = self._format if format is None else format
        if format is None:
            raise TypeError('give the format to sse.start or to response, such as format="ai-sdk"')
        return self._respond(self, format)


def unique_name(id: str) -> str:
    """Returns a name that no other run has, even if the app gives several runs one id."""
    return f"{id} {secrets.token_urlsafe(9)}"


def id_in(name: str) -> str:
    """Returns the id in a name that `unique_name` has made."""
    return name.partition(" ")[0]


def checked_run_id(id: str) -> str:
    """Returns the id of a run if it is valid. Its last event has an idempotency id, made of the run's id.

    :raises InvalidEvent: if the id is not valid; the message says why.
    """
    checked = checked_once(id)
    if len(checked) > MAX_ID:
        raise InvalidEvent("id", f"has {len(checked)} characters, must have at most {MAX_ID}")
    return checked


def run_channel(key: str) -> str:
    """Returns the channel of the run with this key.

    :raises InvalidEvent: if the key is not a string that fits into a channel's name.
    """
    if not isinstance(key, str) or not key:
        raise InvalidEvent("key", f"is {shown(key)}, must be a string that fits into a channel's name")
    try:
        return checked_channel(PREFIX + key)
    except InvalidEvent:  # its message shows the key, in which apps put the ids of users
        allowed = "at most 196 of the characters A-Z a-z 0-9 _ : . / @ -"
        raise InvalidEvent("key", f"does not fit into a channel's name: it must have {allowed}") from None
