"""The page "Board": several people move cards. The server renders the board, and htmx puts it into all pages.

Each change publishes the whole board. So a page that gets a board twice shows the same, and the newest board
is right.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from flask import Response, abort, render_template, request, send_from_directory
from flask_login import current_user

from flask_sse_push import sse

from ..page import Page
from . import cards

#: Channel of the board. Everybody who has signed in may listen to it.
CHANNEL = "board"
MAX_TEXT = 80

page = Page("board", __name__, allows=lambda user, channel: channel == CHANNEL, shows="templates/board.html")


@page.get("/")
def show() -> str:
    """Shows the page. Its stream begins where the request began, so the page misses no change."""
    return render_template("board.html", columns=cards.COLUMNS, cards=cards.read(), max_text=MAX_TEXT)


@page.post("/add")
def add() -> str:
    """Adds a card to the first column. Returns the form, empty again or with what is wrong."""
    text = request.form.get("text", "").strip()
    if not 0 < len(text) <= MAX_TEXT:
        return render_template(
            "_form.html", problem=f"Write at most {MAX_TEXT} characters.", max_text=MAX_TEXT
        )
    with cards.change() as board:
        cards.add(board, text, current_user.name)
        publish(board)
    return render_template("_form.html", max_text=MAX_TEXT)


@page.post("/move/<int:card>/<column>")
def move(card: int, column: str) -> Any:
    """Moves a card to the end of a column."""
    if column not in cards.COLUMNS:
        abort(404)
    with cards.change() as board:
        cards.move(board, card, column)
        publish(board)
    return "", 204


def publish(board: list[cards.Card]) -> None:
    """Sends the board to all pages. Nobody else changes it meanwhile, so the boards arrive in their order."""
    sse.publish(render_template("_board.html", columns=cards.COLUMNS, cards=board), channel=CHANNEL)


@page.get("/htmx/<path:name>.js")
def static_htmx(name: str) -> Response:
    """Sends htmx, which lies in the package django-htmx. Nothing else of that package is used."""
    package = find_spec("django_htmx")
    if package is None or package.origin is None:
        abort(503, "htmx is missing: pip install django-htmx")
    return send_from_directory(Path(package.origin).parent / "static" / "django_htmx", f"{name}.js")
