"""Writes the events of one run's channel in a format, for a stream or a group of the hub."""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from typing import Any

from ...hub.encoder import Encoder
from ...protocol import batch
from ...protocol.cursor import Cursor
from ...protocol.entry import Entry
from ...protocol.frames import comment
from ..output import BEGIN, END, RESERVED
from ..producer import FAILED
from .writer import RunFacts, Writer, written

#: What a client reads if the server closes its stream, by the reason. With any other reason, the client may
#: come back and read the rest.
CLOSED = {
    "logout": "the user has signed out",
    "revoked": "the right to read this run has ended",
    "disconnected": "the server has closed this connection",
}
INTERRUPTED = "the connection was interrupted; the run goes on, and can be read again"
LOST = "a part of this run is no longer there"


class RunEncoder(Encoder):
    """Writes one run of a channel, from its `run.begin` to its `run.end`, and nothing else.

    :param writer: the format.
    :param channel: the channel of the run.
    :param runs: the ids of the runs that may be meant. The first of them that begins is written.
    :param key: the key of the run.
    :param begun: the position of `run.begin`, if the stream starts after it; there is then one id in `runs`.
    :param seen: the cursor of the newest event that the client has. Only what follows this event is sent. If
        the run has no event with this cursor, the whole run is sent.
    """

    def __init__(
        self,
        writer: type[Writer],
        channel: str,
        key: str,
        runs: Collection[str],
        begun: Cursor | None = None,
        seen: Cursor | None = None,
    ) -> None:
        self._make_writer = writer
        self._channel = channel
        self._run_key = key
        self._runs = frozenset(runs)
        self._begun = begun
        self._seen = seen
        # What the client must get if the event at `seen` does not come; None once this is known.
        self._held: list[bytes] | None = None if seen is None else []
        self._writer: Writer | None = None
        self._skipped = False  # whether items came whose `run.begin` did not
        self._opening = b""
        self.ended = False
        if begun is not None:
            (run,) = self._runs
            self._writer = self._begin(run, begun.id)
            self._opening = self._sent(begun, self._writer.begin())

    @property
    def key(self) -> Hashable:
        run = self._runs if self._writer is None else self._writer.run.id
        # A client may have events that this worker does not have yet.
        return self._make_writer, run, None if self._held is None else self._seen

    def _begin(self, run: str, position: int) -> Writer:
        return self._make_writer(RunFacts(self._run_key, run, position // 1_000_000))

    def opening(self) -> bytes:
        return self._opening or comment("")

    def encode(self, entries: Iterable[Entry]) -> bytes:
        return b"".join([self._encode(entry) for entry in entries if self._channel in entry.channels])

    def _encode(self, entry: Entry) -> bytes:
        type, data = event_of(entry)
        if self.ended or not type.startswith(RESERVED):
            return b""
        if self._writer is None:
            return self._seek(entry, type, data)
        if type != END:
            return self._sent(entry.position, self._writer.item(type, data))
        if _fields(data).get("run") != self._writer.run.id:
            return b""
        return self._end(entry, self._writer, _fields(data))

    def _seek(self, entry: Entry, type: str, data: Any) -> bytes:
        """Looks for the beginning of the run."""
        if type not in (BEGIN, END):
            self._skipped = True
            return b""
        fields, skipped, self._skipped = _fields(data), self._skipped, False
        run = fields.get("run")
        if run not in self._runs:
            return b""
        if type == END and (skipped or fields.get("status") != FAILED):
            return self.lose([self._channel])
        self._writer = self._begin(str(run), entry.id)
        begin = self._sent(entry.position, self._writer.begin())
        return begin + self._end(entry, self._writer, fields) if type == END else begin

    def _sent(self, at: Cursor, objects: Sequence[Any]) -> bytes:
        """Returns the bytes of an event and those held before it; nothing while the client may have them."""
        frames, held = written(objects, str(at)), self._held
        if held is None or self._seen is None:
            return frames
        if at == self._seen:
            self._held = None
            return b""
        held.append(frames)
        return self._unheld() if at.id > self._seen.id else b""

    def _unheld(self) -> bytes:
        held, self._held = self._held or [], None
        return b"".join(held)

    def _end(self, entry: Entry, writer: Writer, fields: Mapping[str, Any]) -> bytes:
        self.ended = True
        objects = writer.end(str(fields.get("status")), fields.get("error"))
        return self._sent(entry.position, objects) + self._unheld() + writer.mark()

    def caught_up(self) -> bytes:
        lost = self._writer is None and self._skipped and not self.ended
        return self.lose([self._channel]) if lost else b""

    def lose(self, channels: Sequence[str]) -> bytes:
        if self.ended or self._channel not in channels:
            return b""
        self.ended = True
        return self._failure(LOST, "reset")

    def closing(self, reason: str, *, reconnect: bool) -> bytes:
        if self.ended:
            return b""
        return self._failure(INTERRUPTED if reconnect else CLOSED.get(reason, INTERRUPTED), reason)

    def _failure(self, message: str, code: str) -> bytes:
        writer = copy.copy(self._writer)
        if writer is None:
            writer = self._begin(min(self._runs, default=""), 0)
            return written([*writer.begin(), *writer.fail(message, code)]) + writer.mark()
        return written(writer.fail(message, code)) + writer.mark()


def event_of(entry: Entry) -> tuple[str, Any]:
    """Returns the type of an event and its data. The data is None if it is not JSON."""
    message, _ = batch.message_of(entry.frame)
    try:
        return message["type"], json.loads(message["data"])
    except (ValueError, RecursionError):  # the app may publish whatever it likes to a run's channel
        return message["type"], None


def _fields(data: Any) -> Mapping[str, Any]:
    return data if isinstance(data, Mapping) else {}
