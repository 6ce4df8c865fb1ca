"""Says what it means if the answer to a request for a stream is no stream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple
from urllib.parse import SplitResult, urljoin, urlsplit

from .exchange import Answer, Target
from .finding import Finding, broken, warning
from .proxies import UNKNOWN, find_proxy

NO_STREAM = "browsers get no stream, and EventSource gives up for good"
#: What the doctor cannot do without a stream.
NOT_CHECKED = "so buffering, heartbeats and resuming could not be checked"
SIGN_IN = (
    "name a channel that you may listen to (?channels=…), or sign in: --header "
    "'Cookie: session=…' "
    "(from your browser), or --token TOKEN"
)
#: Words in the address of a page where users sign in.
LOGIN_WORDS = ("login", "signin", "sign-in", "sign_in", "auth", "sso", "next=")


class Place(NamedTuple):
    """Where the app serves its streams: the paths, as its routes say."""

    paths: Sequence[str]

    @property
    def text(self) -> str:
        return " and ".join(self.paths) or "no path at all"


def examine_refusal(target: Target, answer: Answer, place: Place) -> Finding | None:
    """Returns the finding about an answer that is no stream; None if it is a stream. Blocks for a second."""
    if answer.status in range(300, 400):
        return _redirect(target, answer, place)
    if answer.status in (401, 403):
        return warning("stream", _says(target, answer), f"the app refuses you, {NOT_CHECKED}", SIGN_IN)
    if answer.status != 200:
        return _status(target, answer, place)
    kind = answer.headers.get("content-type", "")
    if kind.startswith("text/event-stream"):
        return None
    return broken(
        "stream",
        f"{target.url} answers with {kind or 'no Content-Type'}, not text/event-stream",
        "browsers refuse such a response",
        _page_advice(answer, place),
    )


def _page_advice(answer: Answer, place: Place) -> str:
    text = answer.body().lower()
    if "html" not in answer.headers.get("content-type", ""):
        return f"correct the path of --url: this app serves its streams at {place.text}"
    if 'type="password"' in text or "type='password'" in text:
        return f"this is a page to sign in: {SIGN_IN}"
    return (
        f"correct the path of --url: this app serves its streams at {place.text}. If the path is right, a "
        "proxy answers with a page (nginx: try_files, or a location before the stream's) instead of passing "
        "the request on"
    )


def _redirect(target: Target, answer: Answer, place: Place) -> Finding:
    there = urljoin(target.url, answer.headers.get("location", ""))
    old, new = target.parts, urlsplit(there)
    what = f"{target.url} answers {answer.status}: it redirects to {there}"
    if any(word in there.lower() for word in LOGIN_WORDS) and new.path != old.path:
        why = f"the app or a proxy sends you to a page to sign in, {NOT_CHECKED}"
        return warning("stream", what, why, SIGN_IN)
    return broken(
        "stream",
        what,
        "each reconnect takes two requests, and clients that do not follow redirects get no stream",
        _redirect_advice(old, new, place, there),
    )


def _redirect_advice(old: SplitResult, new: SplitResult, place: Place, there: str) -> str:
    if (old.scheme, new.scheme) == ("http", "https"):
        return f"use the address with https://, here and in the page: {there}"
    if old.path.rstrip("/") == new.path.rstrip("/") and old.hostname == new.hostname:
        return f"use the address as the redirect has it, here and in the page: {there} (mind the last slash)"
    if old.hostname != new.hostname:
        return f"use the host {new.hostname}, here and in the page"
    return f"correct the path: this app serves its streams at {place.text}"


def _says(target: Target, answer: Answer) -> str:
    return f"{target.url} answers {answer.status}: {_message(answer)}"


def _message(answer: Answer) -> str:
    found = answer.json()
    named = f"{found['code']} {found['message']}" if {"code", "message"} <= found.keys() else ""
    return str(named or " ".join(answer.body().split())[:100] or "an empty page")


def _status(target: Target, answer: Answer, place: Place) -> Finding:
    what = _says(target, answer)
    advise = _ADVICE.get(answer.status) or _ADVICE[answer.status // 100 * 100]
    advice = advise(answer, place)
    if answer.status == 429:
        return warning("stream", what, f"a limit is reached, {NOT_CHECKED}", advice)
    return broken("stream", what, NO_STREAM, advice)


def _is_own(answer: Answer) -> bool:
    """Whether a worker of this package has answered, and not a proxy."""
    return "code" in answer.json()


def _behind(answer: Answer) -> str:
    proxy = find_proxy(answer.headers)
    return proxy.name if proxy is not UNKNOWN else "the proxy"


def _not_found(answer: Answer, place: Place) -> str:
    return (
        f"this app serves its streams at {place.text}: correct the path of --url, or let the proxy pass the "
        "path on unchanged (nginx: `proxy_pass http://app;` without a slash at its end)"
    )


def _limited(answer: Answer, place: Place) -> str:
    wait = f"wait {answer.headers['retry-after']} seconds; " if "retry-after" in answer.headers else ""
    if _is_own(answer):
        return (
            f"{wait}raise SSE_PUSH_MAX_STREAMS_PER_USER, _PER_ADDRESS or SSE_PUSH_RATE_… if users meet it too"
        )
    return f"{wait}raise the limit of {_behind(answer)} for the stream's path (nginx: limit_req, limit_conn)"


def _error(answer: Answer, place: Place) -> str:
    return "read the traceback in gunicorn's log (gunicorn --error-logfile), and correct the app"


def _bad_request(answer: Answer, place: Place) -> str:
    if "HTTPS port" in answer.body() or "HTTP request to an HTTPS" in answer.body():
        return "the server expects TLS at this port: begin the URL with https://"
    return "correct the query of --url, such as ?channels=news; docs/protocol.md lists the parameters"


def _bad_gateway(answer: Answer, place: Place) -> str:
    return (
        f"{_behind(answer)} does not reach gunicorn: start gunicorn, and compare its address (`bind`) with "
        "the address in the proxy's configuration (nginx: proxy_pass)"
    )


def _unavailable(answer: Answer, place: Place) -> str:
    if not _is_own(answer):
        return (
            f"{_behind(answer)} has no server to ask: start gunicorn, and look at the proxy's health checks"
        )
    if answer.json()["code"] == 1001:
        return "run gunicorn with -k gevent: this server cannot keep streams open"
    return (
        "if the worker is full: add workers, raise SSE_PUSH_MAX_STREAMS and the limit of open files; if the "
        "broker does not answer: mend the finding `broker`"
    )


def _gateway_timeout(answer: Answer, place: Place) -> str:
    return (
        f"{_behind(answer)} waited in vain for gunicorn: its workers are busy or blocked. Run gunicorn with "
        "-k gevent, and look for slow calls in @sse.authorize and in the user loader"
    )


def _other(answer: Answer, place: Place) -> str:
    return f"this app serves its streams at {place.text}; docs/errors.md explains the answers of the app"


_ADVICE: dict[int, Callable[[Answer, Place], str]] = {
    100: _other,
    200: _other,
    400: _bad_request,
    404: _not_found,
    405: _not_found,
    429: _limited,
    500: _error,
    502: _bad_gateway,
    503: _unavailable,
    504: _gateway_timeout,
}
