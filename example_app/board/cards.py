"""The cards of the board: a file that all workers share. An app of yours would use its database."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

from .. import folder

COLUMNS = {"todo": "To do", "doing": "Doing", "done": "Done"}
#: At most how many cards are kept. The oldest card makes room for a new one.
KEPT = 30


class Card(TypedDict):
    """One card: what to do, who wrote it, and in which column it lies."""

    id: int
    text: str
    by: str
    column: str


#: The cards that the demo begins with.
BEGINNING: tuple[tuple[str, str, str], ...] = (
    ("Oil the bearings of the mill", "Ada", "todo"),
    ("Order silk ribbon", "Grace", "todo"),
    ("Write the table of Bernoulli numbers", "Ada", "doing"),
    ("Tape the moth into the logbook", "Grace", "done"),
)


def _file() -> Path:
    return folder.path() / "board.json"


def read() -> list[Card]:
    """Returns all cards, in the order in which they came into their columns."""
    try:
        board: list[Card] = json.loads(_file().read_text("utf-8"))
    except FileNotFoundError:
        cards = enumerate(BEGINNING, 1)
        board = [{"id": id, "text": text, "by": by, "column": column} for id, (text, by, column) in cards]
    return board


@contextlib.contextmanager
def change() -> Iterator[list[Card]]:
    """Yields the cards. Nobody else changes the board until the end of the block."""
    with folder.lock("board"):
        yield read()


def add(board: list[Card], text: str, by: str) -> None:
    """Adds a card to the first column, and stores the board."""
    id = 1 + max((card["id"] for card in board), default=0)
    board.append({"id": id, "text": text, "by": by, "column": "todo"})
    del board[:-KEPT]
    _store(board)


def move(board: list[Card], id: int, column: str) -> None:
    """Moves a card to the end of a column, if it does not lie there already. Stores the board."""
    for card in list(board):
        if card["id"] == id and card["column"] != column:
            board.remove(card)
            board.append({**card, "column": column})
    _store(board)


def _store(board: list[Card]) -> None:
    new = _file().with_suffix(".new")
    new.write_text(json.dumps(board), "utf-8")
    new.replace(_file())
