"""The reference for handshakes: an empty view on the same kind of gunicorn worker."""

from __future__ import annotations

from ..base import HANDSHAKE, GunicornPeer


class EmptyView(GunicornPeer):
    name = "empty-view"
    title = "empty Flask view, Connection: close"
    app = "benchmarks.peers.empty_view.app:app"
    cases = frozenset({HANDSHAKE})
    publishes = False
    headers = ("Connection: close",)
    distributions = ("flask", "gunicorn", "gevent")
