"""Checks the connection from a browser to the app, proxies included, by opening two streams."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import SplitResult, urlsplit

from ..time_limit import shut
from .finding import Finding, broken, ok, warning

#: How long to wait for the first event, in seconds. If it takes longer, a proxy probably buffers the stream.
EVENT_TIMEOUT = 5.0
#: At most how long one whole request takes, in seconds. A server may answer byte by byte.
REQUEST_TIMEOUT = 2 * EVENT_TIMEOUT
#: A first event that takes at least this many seconds is slow.
SLOW = 1.0
#: At most how many bytes are read until the first event.
MAX_BYTES = 100_000


class Opening(NamedTuple):
    """The beginning of a response, up to its `sse.open` event. Times are seconds since the request."""

    status: int
    headers: Mapping[str, str]  # the keys are header names in lower case
    headers_at: float  # when the headers had arrived
    opened_at: float | None  # when `sse.open` had arrived; None if it did not arrive
    cursor: str  # the cursor of `sse.open`; empty if `sse.open` did not arrive
    data: dict[str, Any]  # the data of `sse.open`; empty if `sse.open` did not arrive
    body: str  # the first 300 bytes of the body, as text


def examine_connection(url: str, headers: Mapping[str, str], context: ssl.SSLContext) -> Iterator[Finding]:
    """Yields findings about the stream at `url`. Opens the stream twice.

    Each time blocks for at most `REQUEST_TIMEOUT` seconds, and for the time to find and reach the server.
    """
    try:
        first = open_stream(url, headers, context)
        findings = list(check_opening(url, first))
        yield from findings
        if all(finding.level != "broken" for finding in findings):
            yield _resumed(open_stream(url, {**headers, "Last-Event-ID": first.cursor}, context))
    except (OSError, http.client.HTTPException, ValueError) as error:
        yield broken(
            "stream",
            f"{url} cannot be reached: {error or type(error).__name__}",
            "no browser can reach it either",
            "check that gunicorn and the proxy run, and check the host, the port and the certificate",
        )


def open_stream(url: str, headers: Mapping[str, str], context: ssl.SSLContext) -> Opening:
    """Opens the stream at `url`, reads its `sse.open` event, and closes the stream. Blocks.

    :raises OSError: if the server cannot be reached, or if `url` is no HTTP address.
    :raises TimeoutError: if the head of the answer takes longer than `REQUEST_TIMEOUT`.
    :raises http.client.HTTPException: if the answer is not valid HTTP.
    :raises ValueError: if `url` or a header has characters that HTTP cannot carry.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise OSError("the URL does not begin with http:// or https://")
    if parts.scheme == "https":
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            parts.hostname, parts.port, timeout=EVENT_TIMEOUT, context=context
        )
    else:
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=EVENT_TIMEOUT)
    try:
        connection.connect()
        limit = threading.Timer(REQUEST_TIMEOUT, shut, [connection.sock])
        limit.daemon = True
        limit.start()
        try:
            return _ask(connection, parts, headers)
        except (OSError, http.client.HTTPException) as error:
            if limit.finished.is_set():
                raise TimeoutError(f"it sent no whole head in {REQUEST_TIMEOUT:g} seconds") from error
            raise
        finally:
            limit.cancel()
    finally:
        connection.close()


def _ask(connection: http.client.HTTPConnection, parts: SplitResult, headers: Mapping[str, str]) -> Opening:
    started = time.monotonic()
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection.request("GET", path, headers={"Accept": "text/event-stream", **headers})
    return _read(connection.getresponse(), started)


def _read(response: http.client.HTTPResponse, started: float) -> Opening:
    headers_at = time.monotonic() - started
    headers = {name.lower(): value for name, value in response.getheaders()}
    text, opened_at = b"", None
    try:
        while len(text) < MAX_BYTES and time.monotonic() < started + REQUEST_TIMEOUT:
            part = response.read1(4096)
            text += part
            if b"event: sse.open" in text and b"\n\n" in text.partition(b"event: sse.open")[2]:
                opened_at = time.monotonic() - started
                break
            if not part or response.status != 200:
                break
    except TimeoutError:
        pass
    fields = _fields(text.decode("utf-8", "replace"))
    return Opening(
        response.status,
        headers,
        headers_at,
        opened_at,
        fields.get("id", ""),
        _object(fields.get("data", "")),
        text[:300].decode(errors="replace"),
    )


def _object(text: str) -> dict[str, Any]:
    """Returns the object that is written in `text` as JSON; an empty dict if there is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _fields(text: str) -> dict[str, str]:
    """Returns the fields of the event `sse.open` in `text`; an empty dict if the event is not there."""
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
        if fields.get("event") == "sse.open":
            return fields
    return {}


def check_opening(url: str, opening: Opening) -> Iterator[Finding]:
    """Yields findings about the beginning of one response. Pure."""
    kind = opening.headers.get("content-type", "")
    if opening.status in (401, 403):
        yield warning(
            "stream",
            f"{url} answers {opening.status}: {_message(opening.body)}",
            "the doctor could not test a stream",
            "name a channel that you may listen to (?channels=…), or sign in with --header 'Cookie: …'",
        )
    elif opening.status != 200:
        yield broken(
            "stream",
            f"{url} answers {opening.status}: {_message(opening.body)}",
            "browsers get no stream, and EventSource gives up for good",
            "404: check url_prefix; 502, 504: the proxy does not reach gunicorn; others: see docs/errors.md",
        )
    elif not kind.startswith("text/event-stream"):
        yield broken(
            "stream",
            f"{url} answers with {kind or 'no Content-Type'}, not text/event-stream",
            "browsers refuse such a response",
            "check the URL: another view, or a page of the proxy, answers there",
        )
    else:
        yield _encoding(opening)
        yield _buffering(opening)


def _encoding(opening: Opening) -> Finding:
    encoding = opening.headers.get("content-encoding", "identity")
    if encoding == "identity":
        return ok("compression", "no proxy compresses the stream")
    return broken(
        "compression",
        f"the stream arrives compressed ({encoding}), although the request did not accept compression",
        "a proxy or middleware that compresses a stream delays events until it has enough of them",
        "exclude text/event-stream from the compression of the proxy or the WSGI middleware",
    )


def _buffering(opening: Opening) -> Finding:
    name = "buffering"
    advice = (
        "nginx: do not ignore X-Accel-Buffering, or set proxy_buffering off; other proxies: see the manual"
    )
    if opening.opened_at is None:
        return broken(
            name,
            f"the response began, but its first event did not arrive within {EVENT_TIMEOUT:g} seconds",
            "a proxy or a middleware buffers the stream, or the broker does not answer",
            advice,
        )
    text = f"the first event arrived after {opening.opened_at:.2f} seconds"
    if opening.opened_at < SLOW:
        return ok(name, text)
    return warning(name, text, "browsers wait as long for the first event after every reconnect", advice)


def _resumed(opening: Opening) -> Finding:
    if opening.data.get("resumed"):
        return ok("resuming", "a second stream continued where the first one ended")
    return broken(
        "resuming",
        "a second stream, opened with Last-Event-ID, was not resumed",
        "at every reconnect, browsers lose the events that they missed",
        "let the proxy forward the header Last-Event-ID, and check that all workers have the same "
        "SSE_PUSH_BROKER_URL and SSE_PUSH_PREFIX",
    )


def _message(body: str) -> str:
    return str(_object(body).get("message") or " ".join(body.split())[:100] or "an empty page")
