"""What a stream costs on the WSGI server of a request, if the stream cannot take over the socket.

Only servers are judged that name themselves in the WSGI environment. A test client names no server.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from enum import Enum
from typing import Any

from ..errors import ErrorCode, Refused
from . import wsgi_server

#: What to change, in error messages and in `flask sse doctor`.
RUN_GEVENT = "run gunicorn with -k gevent"
MORE_THREADS = "start gunicorn with more threads, one for each stream and some for pages: `--threads 100`"
#: Why a worker that serves one request at a time cannot serve streams, and what a thread pool costs.
BLOCKS = "it serves one request at a time, so a stream would block it until the client leaves"
TAKES_THREAD = "each stream keeps a thread busy: when no thread is free, no page is served"
#: Why streams over gunicorn's own HTTP/2 are refused, and what to change.
HTTP2_BLOCKS = (
    "gunicorn serves the requests of an HTTP/2 connection one after another, so a stream would block all "
    "other requests of the connection"
)
HTTP2_ADVICE = (
    "let nginx or Caddy speak HTTP/2 to browsers and HTTP/1.1 to gunicorn, and drop h2 from gunicorn's "
    "http_protocols"
)


class Cost(Enum):
    """What a stream takes from the server as long as it is open."""

    NOTHING = "nothing that other requests need"
    THREAD = "one of the server's threads or processes"
    SERVER = "the whole server process"
    CONNECTION = "the connection, on which the client's other requests wait"


def cost_of(environ: Mapping[str, Any]) -> Cost:
    """Returns what a stream would cost on the server of a request.

    :param environ: the WSGI environment of the request.
    """
    if "gunicorn.socket" in environ and environ.get("SERVER_PROTOCOL", "").startswith("HTTP/2"):
        return Cost.CONNECTION
    if server_name(environ) is None or _has_greenlets(environ):
        return Cost.NOTHING
    if environ.get("wsgi.multithread", True):
        if "werkzeug.socket" in environ:  # starts a thread for each request
            return Cost.NOTHING
        return Cost.SERVER if wsgi_server.thread_count() == 1 else Cost.THREAD
    has_own_process = environ.get("wsgi.run_once") or (
        "werkzeug.socket" in environ and environ.get("wsgi.multiprocess")
    )
    return Cost.THREAD if has_own_process else Cost.SERVER


def server_name(environ: Mapping[str, Any]) -> str | None:
    """Returns the name of the server of a request; None if it does not name itself, as test clients."""
    if "gunicorn.socket" in environ:
        worker = wsgi_server.find_worker()
        return f"gunicorn's {worker.cfg.worker_class_str} worker" if worker else "gunicorn"
    if "uwsgi.version" in environ:
        return "uWSGI"
    return environ.get("SERVER_SOFTWARE")


def _has_greenlets(environ: Mapping[str, Any]) -> bool:
    """Whether the server runs each request in a greenlet, in which a stream can wait without a thread."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.is_module_patched("threading"):
        return False
    if "gunicorn.socket" in environ:
        return bool(environ.get("wsgi.multithread", True)) and wsgi_server.thread_count() is None
    return "uwsgi.version" in environ or environ.get("SERVER_SOFTWARE", "").startswith("gevent/")


def gevent_advice() -> str:
    """Returns how to start the app on gunicorn's gevent worker: the words and the command."""
    worker = wsgi_server.find_worker()
    app = getattr(getattr(worker, "app", None), "app_uri", None) or "module:app"
    install = "" if importlib.util.find_spec("gevent") else "pip install 'gunicorn[gevent]' and "
    return f"{install}{RUN_GEVENT}: `gunicorn -k gevent {app}`"


def explanation(cost: Cost, environ: Mapping[str, Any]) -> str:
    """Returns a sentence that says what the server is, what a stream costs there, and what to change."""
    if cost is Cost.CONNECTION:
        return f"{HTTP2_BLOCKS}; {HTTP2_ADVICE}"
    advice = gevent_advice()
    if "werkzeug.socket" in environ:
        advice = "start it with threads: leave out --without-threads and --processes (app.run: threaded=True)"
    elif "gunicorn.socket" in environ and wsgi_server.thread_count() is not None:
        advice += f", or {MORE_THREADS}"
    why = BLOCKS if cost is Cost.SERVER else TAKES_THREAD
    return f"the server is {server_name(environ)}: {why}; {advice}"


def refusal(cost: Cost, environ: Mapping[str, Any]) -> Refused | None:
    """Returns the refusal of a stream that would block the server or the connection; None for other costs."""
    status = {Cost.CONNECTION: 505, Cost.SERVER: 503}.get(cost)
    if status is None:
        return None
    return Refused(status, ErrorCode.CONNECTION_FAILED, explanation(cost, environ))
