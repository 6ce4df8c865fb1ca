"""The start page: a tile for each page, with a small moving picture of what happens there.

One stream carries the pictures of all tiles. The ticker publishes them (tour.py), for any number of visitors.
"""

from __future__ import annotations

from flask import render_template, url_for

from ..page import Page
from . import tour

#: What each page shows, by the name of its blueprint.
ABOUT = {
    "live": "Several channels over one stream: for everybody, for members, for one user.",
    "assistant": "An answer arrives word by word, goes on after a reload, and can be stopped.",
    "orders": "The progress of work in the background, for its user alone.",
    "board": "Several people move cards. The server renders HTML, and htmx shows it.",
    "stock": "Events of database transactions, also behind proxies that hold streams back.",
    "timer": "One state for everybody, which anybody can change.",
    "activity": "Several channels in one list, with filters and older entries.",
    "rooms": "One stream joins and leaves channels, and shows who is there.",
    "messages": "Private messages, with marks for delivered ones.",
    "notifications": "Toasts for one user, and the same unread list in all windows.",
    "dashboard": "Charts of this machine. They are full as soon as the page opens.",
    "logs": "A real log file, followed through rotation. For admins.",
    "debug": "Raw frames, all connections, the health of the workers. For admins.",
}
#: Number of earlier events that the stream begins with. They fill the curve of the ticks.
FIRST = 90

page = Page("start", __name__, public=True)  # needs no `allows`: its channels are public


@page.get("/")
def show() -> str:
    """Shows the page."""
    stream = url_for("sse.stream", channels=f"{tour.CHANNEL},ticks", last=FIRST)
    return render_template("start.html", stream=stream, about=ABOUT)
