"""Answers the requests below `<prefix>/admin`: finds the view by the path, and sends its result as JSON."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from flask import Request, Response, abort, jsonify
from markupsafe import escape
from werkzeug.exceptions import MethodNotAllowed

from ...auth.identity import Identity
from ...brokers.url import serves_one_process
from ...config.channel_policies import ADMIN_CHANNEL
from ..stream import StreamEndpoint
from . import channels, doctor, events, outboxes, runs, streams, why, workers, writes
from .visit import MAX_PAGE, PAGE, Examine, Visit, shown

#: The folder of the page's files, below the folder that the blueprint serves.
FOLDER = Path(__file__).parents[2] / "static" / "admin"
#: Allows only the package's own files, and no code in the page itself. So text that got into the page cannot
#: run as a script.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'none'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS: Mapping[str, str] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
#: What a browser shows instead of the page to somebody who may not open it.
REFUSED = """<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <meta name="color-scheme" content="light dark">
  <title>Event streams</title>
</head>
<body>
  <h1>Event streams</h1>
  <p>{text}</p>
</body>
</html>
"""


def page(static_path: str) -> Response:
    """Returns the page. All addresses in it are relative to `<prefix>/admin`, so it works behind any proxy.

    :param static_path: the path below the prefix where the blueprint serves its files.
    """
    text = (FOLDER / "page.html").read_text("utf-8").replace('"client/', f'"{static_path.strip("/")}/')
    return Response(text, content_type="text/html; charset=utf-8", headers=HEADERS)


def refusal_page(refused: Response, message: str) -> Response:
    """Returns what a browser shows to somebody who may not open the page.

    :param refused: the response with JSON. The page has its status and its headers.
    :param message: says who may open the page.
    """
    refused.set_data(REFUSED.format(text=escape(f"{message[:1].upper()}{message[1:]}.")))
    refused.headers.update(HEADERS)
    refused.content_type = "text/html; charset=utf-8"
    return refused


def session(visit: Visit) -> dict[str, Any]:
    """Returns what the page needs first: who the admin is, and the headers that protect writes."""
    settings = visit.services.settings
    headers = writes.headers(visit)
    return {
        "user": shown(visit.user_id),
        "worker": visit.services.streaming.worker_counts.name,
        "now": time.time(),
        "version": version("flask-sse-push"),
        "channel": ADMIN_CHANNEL,
        "write_headers": headers,
        "writes_off": writes.NO_KEY if headers is None else None,
        "broker": "memory" if serves_one_process(settings) else settings.broker_url.partition(":")[0],
        "prefix": settings.prefix,
        "page_size": PAGE,
        "max_page_size": MAX_PAGE,
    }


View = Callable[[Visit], dict[str, Any]]
#: The views that read, by the first part of their paths.
READS: Mapping[str, View] = {
    "session": session,
    "streams": streams.page,
    "streams/": streams.one,
    "channels": channels.listed,
    "channel": channels.one,
    "channel/events": events.listed,
    "workers": workers.listed,
    "runs": runs.listed,
    "outbox": outboxes.listed,
    "doctor": doctor.examined,
    "why": why.answered,
}
#: The views that change something, and the HTTP status of their answers.
WRITES: Mapping[str, tuple[View, int]] = {
    "streams/": (streams.disconnect, 202),
    "channel/events": (events.publish, 201),
}


def answer(
    endpoint: StreamEndpoint, identity: Identity, request: Request, path: str, examine: Examine
) -> Response:
    """Returns the response of the view at a path below `<prefix>/admin/`.

    :param examine: runs the checks of `flask sse doctor`.
    :raises NotFound: if there is no such view.
    :raises MethodNotAllowed: if the view cannot be called with the method of the request.
    :raises Refused: if the request is not valid, or if a write may come from a page of another site.
    """
    name, rest = (path, "") if path in READS else (path.partition("/")[0] + "/", path.partition("/")[2])
    visit = Visit(endpoint, identity, request, rest, examine)
    is_write = request.method == "POST"
    methods = [method for method, views in (("GET", READS), ("POST", WRITES)) if name in views]
    if not methods:
        abort(404)
    if request.method.replace("HEAD", "GET") not in methods:
        raise MethodNotAllowed([*methods, "OPTIONS"])
    if not is_write:
        return _json(READS[name](visit), 200)
    writes.check(visit)
    view, status = WRITES[name]
    return _json(view(visit), status)


def _json(body: dict[str, Any], status: int) -> Response:
    response = jsonify(body)
    response.status_code = status
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response
