"""The page "Dashboard": charts of this machine's processor, memory and network over five minutes.

A single process measures, for any number of workers and viewers: see sampler.py and ../ticker.py.
"""

from __future__ import annotations

from flask import render_template, url_for

from ..page import Page
from . import sampler

page = Page("dashboard", __name__, allows=lambda user, channel: channel == sampler.CHANNEL)


@page.get("/")
def show() -> str:
    """Shows the page. Its stream begins with all samples of the last five minutes, which fill the charts at
    once."""
    last = round(sampler.WINDOW / sampler.INTERVAL)
    stream = url_for("sse.stream", channels=sampler.CHANNEL, last=last)
    return render_template("dashboard.html", stream=stream, window=round(sampler.WINDOW))
