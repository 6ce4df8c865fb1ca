"""The page "Dashboard": this machine's processor, memory and network, as psutil sees them, over five minutes.

One process measures, whatever the number of workers and viewers: see sampler.py and ../ticker.py.
"""

from __future__ import annotations

from flask import render_template, url_for

from ..page import Page
from . import sampler

page = Page("dashboard", __name__, allows=lambda user, channel: channel == sampler.CHANNEL)


@page.get("/")
def show() -> str:
    """The page. The stream begins with all samples of the window, so the charts are full at once."""
    last = round(sampler.WINDOW / sampler.INTERVAL)
    stream = url_for("sse.stream", channels=sampler.CHANNEL, last=last)
    return render_template("dashboard.html", stream=stream, window=round(sampler.WINDOW))
