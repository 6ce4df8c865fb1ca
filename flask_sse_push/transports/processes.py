"""Finds out whether several processes serve an app. Then `memory://` does not reach all streams."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from . import wsgi_server


def several(environ: Mapping[str, Any]) -> str | None:
    """Returns a clause that says which processes serve the app, if there are several; otherwise None.

    :param environ: the WSGI environment of a request; empty outside of requests.
    """
    if wsgi_server.find_worker() is not None:
        workers = wsgi_server.worker_count()
        return f"gunicorn runs {workers} workers" if workers > 1 else None
    uwsgi = sys.modules.get("uwsgi")
    if uwsgi is not None:
        return f"uWSGI runs {uwsgi.numproc} processes" if uwsgi.numproc > 1 else None
    return "the server runs several processes" if environ.get("wsgi.multiprocess") else None


def serves_app(environ: Mapping[str, Any]) -> bool:
    """Whether this process is a worker of a web server, so that it serves the app.

    :param environ: the WSGI environment of a request; empty outside of requests. Requests that a test or a
        script has made itself do not name a server.
    """
    return wsgi_server.find_worker() is not None or "uwsgi" in sys.modules or "SERVER_SOFTWARE" in environ


def is_reloaded() -> bool:
    """Whether `flask run --debug` or `--reload` starts this process again whenever the app's code changes."""
    return os.environ.get("WERKZEUG_RUN_MAIN") == "true"
