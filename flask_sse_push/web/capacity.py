"""How many streams a worker may have, and what to change when it has no room for another one."""

from __future__ import annotations

from ..config import Settings
from ..transports import wsgi_server
from ..transports.cost import MORE_THREADS, gevent_advice


def max_streams(settings: Settings) -> int:
    """Returns how many streams this worker may have: SSE_PUSH_MAX_STREAMS, or fewer if the limit of open
    files is lower."""
    return min(settings.max_streams, wsgi_server.file_places())


def explain_full(settings: Settings, *, holds_request: bool) -> str:
    """Returns which limit a full worker has reached, and what to change.

    :param holds_request: whether each stream keeps a thread or a connection of the server busy.
    """
    waiting, most = wsgi_server.request_places(), max_streams(settings)
    if holds_request and waiting is not None and waiting < most:
        return _explain_places(waiting)
    if most < settings.max_streams:
        return (
            f"the limit of open files leaves room for {most} streams; raise it before the server starts: "
            f"`ulimit -n {2 * (most + wsgi_server.SPARE_FILES)}`, or LimitNOFILE= in a unit of systemd"
        )
    return f"SSE_PUSH_MAX_STREAMS is {most}; raise it, or start more workers: gunicorn --workers"


def _explain_places(waiting: int) -> str:
    threads, connections = wsgi_server.thread_count(), wsgi_server.connection_count()
    what = f"{connections} connections" if threads is None else f"{threads} threads"
    limit = f"each stream keeps one of the worker's {what} busy, and streams may take {waiting} of them"
    if threads is not None:
        return f"{limit}; {gevent_advice()}, or {MORE_THREADS}"
    return (
        f"{limit}; start gunicorn with more --worker-connections. With -k gevent and "
        "SSE_PUSH_TRANSPORT=auto, without gunicorn's own TLS, streams keep no connection busy"
    )
