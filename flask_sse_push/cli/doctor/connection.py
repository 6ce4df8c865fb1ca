"""Checks the connection from a browser to the app, proxies included, by opening two streams."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ...config import SHARE_BROKER
from . import network
from .exchange import Answer, Target, Withheld, exchange, json_object
from .finding import Finding, broken, ok, warning
from .proxies import find_proxy
from .refusal import Place, examine_refusal
from .unreachable_url import examine_url, is_url

#: How long to wait for the first event, in seconds. If it takes longer, a proxy probably buffers the stream.
EVENT_TIMEOUT = 5.0
#: A first event that takes at least this many seconds is slow.
SLOW = 1.0
#: The stream is held open for one heartbeat and this many seconds, but at most for `LONGEST_HOLD` seconds.
GRACE, LONGEST_HOLD = 3.0, 45.0
#: The path of a small file of the blueprint. If the file arrives and the stream does not, a proxy buffers.
PLAIN_PATH = "/client/report.js"
REQUEST = {"Accept": "text/event-stream", "Accept-Encoding": "gzip", "Cache-Control": "no-cache"}


class Known(NamedTuple):
    """What the doctor knows before it opens a stream."""

    place: Place
    broken: frozenset[str] = frozenset()  # the names of the parts that are broken
    compresses: bool = False  # whether the app itself compresses streams
    protocol: str = ""  # the version of HTTP that the app's server got, such as HTTP/1.0; empty if unknown
    in_memory: bool = False  # whether this command's broker is `memory://`, which serves one process only


class First(NamedTuple):
    """What `sse.open` says on the first stream: a cursor, and the seconds between two heartbeats."""

    cursor: str
    heartbeat: float


def examine_connection(target: Target, known: Known) -> Iterator[Finding]:
    """Yields findings about the stream at a URL. Opens the stream twice, and waits for one heartbeat."""
    try:
        if not is_url(target):
            raise ValueError("the URL does not begin with http:// or https://, or has no host")
        yield from _examine(target, known)
    except Withheld:
        yield _withheld(
            target, f"no answer to the request for the stream came within {EVENT_TIMEOUT:g} seconds"
        )
    except (OSError, http.client.HTTPException, ValueError) as error:
        yield examine_url(target, error)


def _examine(target: Target, known: Known) -> Iterator[Finding]:
    with exchange(target, REQUEST, LONGEST_HOLD + 10) as answer:
        refusal = examine_refusal(target, answer, known.place)
        if refusal is not None:
            # The doctor has reported already that this server cannot keep streams open.
            if not (answer.status == 503 and "worker class" in known.broken):
                yield refusal
            return
        if "broker" in known.broken:
            yield ok("stream", "it opens; events could not be checked, because the broker is broken")
            return
        yield from _encoding(answer, known)
        first, findings = _first_event(target, answer)
        yield from findings
        if first is None:
            return
        held = _held(answer, first)
    resumed = _resumed(target, first, known)
    if resumed.level != "broken":  # two faults have one cause, so the doctor reports one
        yield held
    yield resumed
    yield from _protocol(answer, known)
    yield from _addresses(target)


def _encoding(answer: Answer, known: Known) -> Iterator[Finding]:
    encoding = answer.headers.get("content-encoding", "identity")
    if encoding == "identity":
        yield ok("compression", "no proxy compresses the stream")
    elif known.compresses:
        yield ok("compression", f"{encoding}, by the app (SSE_PUSH_HTTP_COMPRESSION)")
    else:
        yield broken(
            "compression",
            f"{find_proxy(answer.headers).name} compresses the stream ({encoding}), and the app does not",
            "a proxy that compresses collects events before it sends them, or needs memory for each stream",
            find_proxy(answer.headers).compression,
        )


def _first_event(target: Target, answer: Answer) -> tuple[First | None, list[Finding]]:
    arrived = answer.read_until(_has_begun, EVENT_TIMEOUT)
    if not arrived and "content-encoding" in answer.headers:
        return None, []  # a proxy compresses, and holds back the events: `_encoding` has reported this
    if not arrived and answer.ended:
        return None, [
            broken(
                "stream",
                f"the response ended after {time.monotonic() - answer.started:.1f} seconds without an event",
                "browsers reconnect again and again",
                "read the log of gunicorn: a middleware or a proxy ends the response",
            )
        ]
    if not arrived:
        text = f"the response began, but its first event did not arrive within {EVENT_TIMEOUT:g} seconds"
        return None, [_withheld(target, text, answer)]
    seconds = time.monotonic() - answer.started
    if not _has_opened(answer.text):
        return None, [_error(answer, seconds)]
    fields = _fields(answer)
    first = First(fields.get("id", ""), _seconds(_data(fields).get("heartbeat")))
    text = f"the first event arrived after {seconds:.2f} seconds"
    if seconds < SLOW:
        return first, [ok("buffering", text)]
    why = "browsers wait as long for the first event after every reconnect"
    advice = "look for slow calls in @sse.authorize and the user loader, and at the CPU of the workers"
    return first, [warning("buffering", text, why, advice)]


def _seconds(value: object) -> float:
    """Returns `value` if it is a number of seconds between two heartbeats, otherwise 15."""
    return float(value) if isinstance(value, (int, float)) and 0 < value < 1e6 else 15.0


def _has_opened(text: bytes) -> bool:
    return b"\n\n" in text.partition(b"event: sse.open")[2]


def _has_begun(text: bytes) -> bool:
    """Whether the stream has opened, or has said with `sse.error` why it does not open yet."""
    return _has_opened(text) or b"\n\n" in text.partition(b"event: sse.error")[2]


def _fields(answer: Answer, event: str = "sse.open") -> dict[str, str]:
    """Returns the fields of the first event of a type in an answer; an empty dict if there is none."""
    for block in answer.text.decode("utf-8", "replace").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
        if fields.get("event") == event:
            return fields
    return {}


def _data(fields: Mapping[str, str]) -> dict[str, Any]:
    """Returns the JSON object that is the data of an event."""
    return json_object(fields.get("data", "").rstrip("\t"))


def _error(answer: Answer, seconds: float) -> Finding:
    """Returns the finding about a stream that got `sse.error` before `sse.open`."""
    said = _data(_fields(answer, "sse.error"))
    return broken(
        "stream",
        f"after {seconds:.1f} seconds the app sent sse.error {said.get('code')}: {said.get('message')}",
        "the stream is open, but gets no events yet",
        "read gunicorn's log, and run `flask sse doctor` on the app's machine, as the user and with the "
        "environment of gunicorn: it then examines the broker that the app uses",
    )


def _withheld(target: Target, what: str, answer: Answer | None = None) -> Finding:
    """Returns the finding about a stream that does not arrive.

    Asks for a plain file too, which shows whether the server or a proxy withholds the stream.
    """
    try:
        with exchange(target.below(PLAIN_PATH), {}, EVENT_TIMEOUT) as plain:
            seconds, headers = time.monotonic() - plain.started, plain.headers
    except (Withheld, OSError, http.client.HTTPException, ValueError):
        return broken(
            "stream",
            f"{what}, nor does the plain file {target.below(PLAIN_PATH).url}",
            "the server behind this address is stopped, overloaded or blocked",
            "look at gunicorn's log and CPU: are all workers busy (worker class sync, too few threads), or "
            "do they wait for a database?",
        )
    proxy = find_proxy(answer.headers if answer else headers)
    return broken(
        "buffering",
        f"{what}, but a plain file arrived after {seconds:.2f} seconds: {proxy.name} buffers the stream",
        "browsers get events late or never, and all at once",
        proxy.buffering,
    )


def _held(answer: Answer, first: First) -> Finding:
    """Returns the finding about the time until the first heartbeat."""
    name, began = "silence", time.monotonic()
    wait = min(first.heartbeat + GRACE, LONGEST_HOLD)
    beats = answer.text.count(b"sse.heartbeat")
    arrived = answer.read_until(lambda text: text.count(b"sse.heartbeat") > beats, wait)
    seconds = time.monotonic() - began
    proxy = find_proxy(answer.headers)
    if arrived:
        return ok(name, f"a heartbeat arrived after {seconds:.1f} seconds of silence")
    if b"event: sse.close" in answer.text:
        return ok(name, f"the app closed the stream after {seconds:.1f} seconds, for a reason of its own")
    if answer.ended:
        return broken(
            name,
            f"the connection was closed after {seconds:.1f} seconds; heartbeats come every "
            f"{first.heartbeat:g} seconds",
            f"{proxy.name} or a firewall closes quiet connections before the heartbeat, so clients reconnect "
            "all the time",
            proxy.timeout,
        )
    if first.heartbeat + GRACE > LONGEST_HOLD:
        return ok(name, f"the stream stayed open for {seconds:.0f} seconds")
    return broken(
        "buffering",
        f"after the first event nothing arrived for {seconds:.1f} seconds, not even the heartbeat that comes "
        f"every {first.heartbeat:g} seconds",
        f"{proxy.name} holds back what comes after the first bytes: browsers get events late or never",
        proxy.buffering,
    )


def _resumed(target: Target, first: First, known: Known) -> Finding:
    name = "resuming"
    try:
        with exchange(target, {**REQUEST, "Last-Event-ID": first.cursor}, EVENT_TIMEOUT + 10) as answer:
            if answer.status != 200 or not answer.read_until(_has_begun, EVENT_TIMEOUT):
                return _second(answer.status)
            if not _has_opened(answer.text):
                return _error(answer, time.monotonic() - answer.started)
            data = _data(_fields(answer))
    except (Withheld, OSError, http.client.HTTPException):
        return _second(0)
    if data.get("resumed"):
        return ok(name, "a second stream continued where the first one ended")
    what = "a second stream, opened with Last-Event-ID, was not resumed"
    why = "at every reconnect, browsers lose the events that they missed"
    if known.in_memory:
        what += ": probably several workers serve the app, and SSE_PUSH_BROKER_URL is memory://"
        why = "memory:// serves one worker: streams miss what other workers publish, also at a reconnect"
        return broken(name, what, why, f"{SHARE_BROKER}; or run one worker")
    advice = "let the proxy forward the header Last-Event-ID, and check that all workers have the same "
    return broken(name, what, why, f"{advice}SSE_PUSH_BROKER_URL and SSE_PUSH_PREFIX")


def _second(status: int) -> Finding:
    return warning(
        "resuming",
        "a second stream did not open" + (f": the answer was {status}" if status not in (0, 200) else ""),
        "browsers that reconnect, and second tabs, may be refused too; whether streams resume is not known",
        "look at the limits of streams and attempts: SSE_PUSH_MAX_STREAMS_PER_…, SSE_PUSH_RATE_PER_…, and "
        "limit_req or limit_conn of the proxy",
    )


def _protocol(answer: Answer, known: Known) -> Iterator[Finding]:
    if known.protocol == "HTTP/1.0":
        proxy = find_proxy(answer.headers)
        advice = proxy.protocol or "let the proxy speak HTTP/1.1 to gunicorn"
        what = f"{proxy.name} speaks HTTP/1.0 to the app"
        why = "each request opens a connection of its own, and a stream that is cut off looks complete"
        yield warning("HTTP/1.0", what, why, advice)
    elif known.protocol:
        yield ok("HTTP version", f"the app gets requests with {known.protocol}")


def _addresses(target: Target) -> Iterator[Finding]:
    try:
        found = network.survey(target.parts.hostname or "", target.port)
    except socket.gaierror:
        return
    bad = [each for each in found if each.problem]
    if bad:
        shown = ", ".join(f"{each.text} ({each.problem})" for each in bad)
        yield warning(
            "addresses",
            f"{target.parts.hostname} has addresses at which no server answers: {shown}",
            "clients that try such an address first, IPv6 before IPv4, wait or fail",
            "let the server listen at all addresses (nginx: also `listen [::]:443 ssl;`), or remove these "
            "addresses from DNS",
        )
