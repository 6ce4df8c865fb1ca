"""The way from a client to the app, proxies included: asked by opening streams as a browser does."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from .finding import Finding, broken, ok, warning

#: Seconds that the first event may take: what is not here then waits in somebody's buffer.
PATIENCE = 5.0
#: Seconds after which it is worth a look.
SLOW = 1.0
#: Bytes read at most in search of the first event.
MOST = 100_000


class Opening(NamedTuple):
    """How a stream began. Times are seconds since the request."""

    status: int
    headers: Mapping[str, str]  # names in small letters
    headed_at: float
    opened_at: float | None  # when `sse.open` was here; None: it never was
    cursor: str
    data: dict[str, Any]
    body: str  # what came instead


def examine_connection(url: str, headers: Mapping[str, str]) -> Iterator[Finding]:
    """Findings on the stream at `url`; opens two. Blocks for some seconds at most."""
    try:
        first = ask(url, headers)
    except (OSError, http.client.HTTPException) as error:
        yield broken(
            "stream",
            f"{url} cannot be reached: {error or type(error).__name__}",
            "no browser reaches it either",
            "look whether gunicorn and the proxy run, and at host, port and certificate",
        )
        return
    found = list(judge(url, first))
    yield from found
    if all(finding.level != "broken" for finding in found):
        yield _resumed(ask(url, {**headers, "Last-Event-ID": first.cursor}))


def ask(url: str, headers: Mapping[str, str]) -> Opening:
    """Opens a stream and leaves it after its first event. Raises OSError and HTTPException."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise OSError("not a URL that begins with http:// or https://")
    if parts.scheme == "https":
        context = ssl.create_default_context()
        line: http.client.HTTPConnection = http.client.HTTPSConnection(
            parts.hostname, parts.port, timeout=PATIENCE, context=context
        )
    else:
        line = http.client.HTTPConnection(parts.hostname, parts.port, timeout=PATIENCE)
    try:
        began = time.monotonic()
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        line.request("GET", path, headers={"Accept": "text/event-stream", **headers})
        answer = line.getresponse()
        return _read(answer, began)
    finally:
        line.close()


def _read(answer: http.client.HTTPResponse, began: float) -> Opening:
    headed_at = time.monotonic() - began
    headers = {name.lower(): value for name, value in answer.getheaders()}
    text, opened_at = b"", None
    try:
        while len(text) < MOST and time.monotonic() < began + 2 * PATIENCE:
            piece = answer.read1(4096)
            text += piece
            if b"event: sse.open" in text and b"\n\n" in text.partition(b"event: sse.open")[2]:
                opened_at = time.monotonic() - began
                break
            if not piece or answer.status != 200:
                break
    except TimeoutError:
        pass
    fields = _fields(text.decode("utf-8", "replace"))
    data = json.loads(fields["data"]) if opened_at is not None else {}
    return Opening(
        answer.status,
        headers,
        headed_at,
        opened_at,
        fields.get("id", ""),
        data,
        text[:300].decode(errors="replace"),
    )


def _fields(text: str) -> dict[str, str]:
    """The fields of the block that has `sse.open`."""
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
        if fields.get("event") == "sse.open":
            return fields
    return {}


def judge(url: str, opening: Opening) -> Iterator[Finding]:
    """Findings on one opening. Pure."""
    kind = opening.headers.get("content-type", "")
    if opening.status in (401, 403):
        yield warning(
            "stream",
            f"{url} answers {opening.status}: {_message(opening.body)}",
            "the way to the app could not be tried out",
            "name a channel that you may listen to (?channels=…), or send who you are by --header",
        )
    elif opening.status != 200:
        yield broken(
            "stream",
            f"{url} answers {opening.status}: {_message(opening.body)}",
            "browsers get no stream, and EventSource gives up for good",
            "404: look at url_prefix; 502, 504: the proxy does not reach gunicorn; else see docs/errors.md",
        )
    elif not kind.startswith("text/event-stream"):
        yield broken(
            "stream",
            f"{url} answers with {kind or 'no Content-Type'}, not text/event-stream",
            "browsers refuse it",
            "look at the URL: another view, or a page of the proxy, answers there",
        )
    else:
        yield _encoding(opening)
        yield _buffering(opening)


def _encoding(opening: Opening) -> Finding:
    encoding = opening.headers.get("content-encoding", "identity")
    if encoding == "identity":
        return ok("compression", "nobody on the way compresses the stream")
    return broken(
        "compression",
        f"the stream comes compressed ({encoding}), which was not asked for",
        "who compresses holds events back until there are enough of them",
        "let the proxy or the WSGI middleware pass text/event-stream as it is",
    )


def _buffering(opening: Opening) -> Finding:
    name = "buffering"
    advice = (
        "nginx: do not ignore X-Accel-Buffering, or set proxy_buffering off; other proxies have their own"
    )
    if opening.opened_at is None:
        return broken(
            name,
            f"the answer began, but its first event did not arrive within {PATIENCE:g} seconds",
            "a proxy or a middleware collects the stream in a buffer, or the broker does not answer",
            advice,
        )
    text = f"the first event was here after {opening.opened_at:.2f} seconds"
    if opening.opened_at < SLOW:
        return ok(name, text)
    return warning(name, text, "browsers wait as long with every reconnect", advice)


def _resumed(opening: Opening) -> Finding:
    if opening.data.get("resumed"):
        return ok("resuming", "a second stream took up where the first one ended")
    return broken(
        "resuming",
        "a stream that came back with Last-Event-ID was not resumed",
        "browsers get no event that they missed, on every reconnect",
        "let the proxy pass the header Last-Event-ID on, and look whether all workers have the same "
        "SSE_PUSH_BROKER_URL and SSE_PUSH_PREFIX",
    )


def _message(body: str) -> str:
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return " ".join(body.split())[:100] or "an empty page"
