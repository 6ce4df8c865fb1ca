"""Joins the pieces of a run's text for readers that come late, so that they get the text in one event."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ..history.joining import Joining
from ..protocol.entry import Entry, event_frame
from ..protocol.event import make_event
from .items import reasoning_of
from .output import AROUND, ITEM, TEXT, piece_event
from .run import PREFIX

#: Pieces of text are joined as long as the joined event has at most this many bytes of text.
MAX_PIECE = 262_144
#: The lines before the data of an event that may be a piece of text, or of reasoning.
_TEXT, _ITEM = (f"event: {type}\ndata: ".encode() for type in (TEXT, ITEM))


class Piece(NamedTuple):
    """A piece of text or of reasoning."""

    text: str  # of the class `Reasoning` for reasoning
    channel: str
    size: int  # how many bytes the text takes as JSON, or a few more

    def continues(self, other: Piece) -> bool:
        """Whether both pieces belong to the same text, if no event came between them."""
        return self.channel == other.channel and type(self.text) is type(other.text)


def join_pieces(entries: Iterable[Entry], boundary: int) -> Iterator[Entry]:
    """Joins neighbouring pieces of a text, and of reasoning; see `Joining`."""
    joined: list[tuple[Entry, Piece]] = []
    size = 0
    for entry in entries:
        piece = _piece_of(entry)
        if joined:
            last, last_piece = joined[-1]
            too_big = piece is not None and size + piece.size > MAX_PIECE
            if piece is None or not piece.continues(last_piece) or too_big or last.id <= boundary < entry.id:
                yield _joined(joined)
                joined, size = [], 0
        if piece is None:
            yield entry
        else:
            joined.append((entry, piece))
            size += piece.size
    if joined:
        yield _joined(joined)


def _piece_of(entry: Entry) -> Piece | None:
    """Returns the piece in an event; None if the event has something else, or is not for all streams."""
    frame = entry.frame
    begin = frame.index(b"\n") + 1
    is_text = frame.startswith(_TEXT, begin)
    if not is_text and not (frame.startswith(_ITEM, begin) and b'"reasoning"' in frame):
        return None
    if entry.shared or entry.exclude or entry.expires or not entry.channels[0].startswith(PREFIX):
        return None
    begin += len(_TEXT if is_text else _ITEM)
    try:
        data = json.loads(frame[begin:])
    except (ValueError, RecursionError):  # the app may publish whatever it likes to a run's channel
        return None
    if not is_text:
        reasoning = reasoning_of(data)
        return None if reasoning is None else Piece(reasoning, entry.channels[0], len(frame) - begin - AROUND)
    if isinstance(data, dict) and len(data) == 1 and isinstance(data.get("text"), str):
        return Piece(data["text"], entry.channels[0], len(frame) - begin - AROUND)
    return None


def _joined(pieces: list[tuple[Entry, Piece]]) -> Entry:
    """Returns the entry with the text of all pieces, at the position of the last piece."""
    last, piece = pieces[-1]
    if len(pieces) == 1:
        return last
    type, data = piece_event(piece.text.__class__, "".join([each.text for _, each in pieces]))
    entry = copy.copy(last)
    entry.frame = event_frame(last.cursor, make_event(data, type).encode())
    return entry


#: What the hub needs to join the text of runs.
JOINING = Joining(PREFIX, join_pieces)
