"""The apps of docs/html.md in one server, each under its own host: `htmx2.localhost`, `turbo.localhost`, …

Two more apps have the same page for EventSource and for PushClient. The addresses of the libraries' files
become `/lib/…`, where this server sends them from the installed packages.
"""

from __future__ import annotations

import os
import re
import sysconfig
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import parse_qs

from flask import Flask, Response, request, send_from_directory

from tests.support.pages import blocks
from tests.support.processes import ROOT

NODE = ROOT / "tests" / "js" / "node_modules"
#: The installed packages with the libraries, by the beginning of their address. npm has no Datastar 1.0, so
#: it comes from a Python package.
PACKAGES = {
    "npm/htmx.org@2": NODE / "htmx2",
    "npm/htmx.org@4": NODE / "htmx4",
    "npm/htmx-ext-sse@2": NODE / "htmx-ext-sse",
    "npm/@hotwired/turbo@8": NODE / "@hotwired" / "turbo",
    "gh/starfederation/datastar@v1": Path(sysconfig.get_path("purelib")) / "starhtml" / "static" / "js",
}
#: The file of Datastar has another name in the package.
RENAMED = {"bundles/datastar.js": "datastar-core.js"}

#: How the two other pages read the stream.
READERS = {
    "native": "new EventSource(url).onmessage = ({ data }) => orders.insertAdjacentHTML('beforeend', data);",
    "push": "const { PushClient } = await import('/stream/client/push-client.js'); const client = "
    "new PushClient(url, { minDelay: 100 });"
    "client.on('message', ({ data }) => orders.insertAdjacentHTML('beforeend', data));",
}

delay = 0.0  # how long the server waits before it sends a library, in seconds
asked: set[str] = set()  # the hosts whose pages have asked for a library since the delay was set
#: For each request for a stream: its host, the cursor in its address, and its header Last-Event-ID.
opened: list[tuple[str, str, str]] = []


def codes() -> dict[str, str]:
    """Returns the code of each app."""
    found = dict(zip(("htmx2", "htmx4", "turbo", "datastar"), blocks("docs/html.md", "python"), strict=True))
    for name, reader in READERS.items():
        page = (
            "<script src=/lib/nothing.js></script><ul id=orders></ul>"
            "<script type=module>const url = {{ sse.url('orders')|tojson }};" + reader + "</script>"
        )
        before, _, after = found["htmx2"].split('"""')
        found[name] = f"{before}{page!r}{after}"
    return found


def load(name: str, code: str) -> Flask:
    """Runs the code of a page, and returns its app."""
    module = ModuleType(name)
    exec(compile(code.replace("https://cdn.jsdelivr.net/", "/lib/"), name, "exec"), module.__dict__)
    app: Flask = module.app
    app.config["SSE_PUSH_PREFIX"] = f"{os.environ['SSE_PUSH_PREFIX']}{name}"
    app.add_url_rule("/lib/<path:path>", "lib", library)
    app.add_url_rule("/delay/<float:seconds>", "set_delay", set_delay)
    app.add_url_rule("/asked", "asked", lambda: sorted(asked))
    app.add_url_rule("/opened", "opened", lambda: opened)
    return app


def library(path: str) -> Response:
    """Sends the file of a library, after the delay."""
    asked.add(request.host)
    time.sleep(delay)
    if path == "nothing.js":  # the pages without a library wait for this file
        return Response(mimetype="text/javascript")
    found = re.fullmatch(r"(\w+/.*?@v?\d+)[\d.]*/(.+)", path)
    assert found
    package, file = found.groups()
    response = send_from_directory(PACKAGES[package], RENAMED.get(file, file))
    response.headers["Cache-Control"] = "no-store"
    return response


def set_delay(seconds: float) -> str:
    """Sets how long the server waits before it sends a library."""
    global delay
    delay = seconds
    asked.clear()
    return f"{seconds} seconds"


for folder in PACKAGES.values():
    if not folder.is_dir():
        raise RuntimeError(f"{folder} is missing: run `make .venv/test`")
apps = {name: load(name, code) for name, code in codes().items()}


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The WSGI application. The first part of the host chooses the app."""
    name = environ["HTTP_HOST"].partition(".")[0]
    if environ["PATH_INFO"] == "/stream":
        (cursor,) = parse_qs(environ["QUERY_STRING"])["last_event_id"]
        opened.append((name, cursor, environ.get("HTTP_LAST_EVENT_ID", "")))
    return apps.get(name, apps["htmx2"])(environ, start_response)
