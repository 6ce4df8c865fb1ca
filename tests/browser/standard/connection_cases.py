"""How a client connects, which answers it takes, and what it does after a connection (WHATWG HTML, 9.2)."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

from .case import AGAIN, CURSOR, LOST, NETWORK, Answer, Case, Reply, Report, Request, message, refused, stream
from .id_cases import asked, echo


def answers(name: str, answer: Reply, *reports: Report, differs: str = "") -> Case:
    return Case(name, (answer,), reports, differs=differs)


STATUSES = (
    *(
        answers(
            f"status {status} ends the stream for good", stream("data: a\n\n", status=status), refused(status)
        )
        for status in (204, 400, 401, 403, 405, 410, 413, 414, 415, 431, 505)
    ),
    *(
        answers(
            f"after status {status} the client tries again",
            stream("data: a\n\n", status=status),
            refused(status),
            differs=AGAIN,
        )
        for status in (201, 202, 206, 210, 299, 300, 402, 404, 408, 429, 500, 502, 503, 504)
    ),
    Case(
        "the client gets in after 503",
        (stream(status=503), stream(status=503), stream("data: a\n\n")),
        (refused(503), message("a"), LOST),
        differs=AGAIN,
        transports=("native",),
        connections=2,
    ),
    Case(
        "the client gets in after 503s",
        (stream(status=503), stream("data: a\n\n")),
        (refused(503), message("a"), LOST),
        differs=AGAIN,
        transports=("fetch",),
    ),
)

MEDIA_TYPES = (
    *(
        answers(f"the type {type!r} is a stream's", stream("data: a\n\n", type=type), message("a"), LOST)
        for type in (
            "text/event-stream",
            "text/event-stream;",
            "text/event-stream ; charset=utf-8",
            "TEXT/Event-Stream",
            'text/event-stream;a="b;c";d',
        )
    ),
    *(
        answers(
            f"the type {type!r} is no stream's", stream("data: a\n\n", type=type), refused(200), differs=AGAIN
        )
        for type in (
            "x bogus",
            "text/x-bogus",
            "text/event-stream-x",
            "text/event-streams",
            "text /event-stream",
            "event-stream",
            "text/plain",
            "application/x-text/event-stream",
            "",
        )
    ),
    answers(
        "an answer without a type is no stream", stream("data: a\n\n", type=None), refused(200), differs=AGAIN
    ),
)


def redirect(status: int) -> tuple[Answer, ...]:
    """Returns the answers that lead the client to another path, where the stream is."""

    def elsewhere(request: Request) -> Reply:
        return Reply(
            status=status, type=None, headers={"Location": f"/play/elsewhere?{urlencode(request.query)}"}
        )

    return elsewhere, echo(lambda request: request.path)


#: A path on the other origin.
AWAY = "/play/away"


def away(request: Request) -> Reply:
    location = f"{{other}}{AWAY}?{urlencode(request.query)}"
    return Reply(status=302, type=None, headers={"Location": location})


def back(request: Request) -> Reply:
    return Reply(status=302, type=None, headers={"Location": f"/play/?{urlencode(request.query)}"})


REDIRECTS = (
    *(
        Case(
            f"a redirect with status {status} is followed",
            redirect(status),
            (message("/play/elsewhere"), LOST),
            connections=1,
        )
        for status in (301, 302, 303, 307, 308)
    ),
    Case(
        "a redirect to another origin needs its permission",
        (away, stream("data: a\n\n", headers={"Access-Control-Allow-Origin": "*"})),
        (message("a"), LOST),
        connections=1,
    ),
    Case("a redirect without end", (back,), (LOST,), differs=NETWORK),
    Case(
        "a redirect to another origin that does not permit it",
        (lambda request: stream("data: a\n\n") if request.path == AWAY else away(request),),
        (LOST,),
        differs=NETWORK,
    ),
)

ANY = {"Access-Control-Allow-Origin": "*"}


def own(request: Request) -> Mapping[str, str]:
    """Returns the headers that permit the asking origin to send cookies."""
    return {
        "Access-Control-Allow-Origin": request.headers["origin"],
        "Access-Control-Allow-Credentials": "true",
    }


def cookie(request: Request) -> str:
    return "case" + request.query["run"].partition("#")[2]


def sets_cookie(request: Request) -> Reply:
    headers = {**own(request), "Set-Cookie": f"{cookie(request)}=1; Path=/"}
    return stream("data: first\n\n", headers=headers)


def tells_cookie(request: Request) -> Reply:
    came = cookie(request) in request.headers.get("cookie", "")
    return stream(f"data: {'cookie' if came else 'no cookie'}\n\n", headers=own(request))


def cookies(name: str, told: str, options: Mapping[str, bool]) -> Case:
    return Case(
        name,
        (sets_cookie, tells_cookie),
        (message("first"), LOST, message(told), LOST),
        options=options,
        origin="other",
    )


def permits(name: str, headers: Mapping[str, str], options: Mapping[str, bool] | None = None) -> Case:
    """Returns the case of a stream of another origin, which does not permit the page to read it."""
    return Case(
        name,
        (stream("data: a\n\n", headers=headers),),
        (LOST,),
        options=options or {},
        origin="other",
        differs=NETWORK,
    )


def unusual(name: str, id: str) -> Case:
    """Returns the case of an id for which a header would need a preflight request."""
    after = lambda request: stream(f"data: {request.method} {asked(request) == id}\n\n", headers=ANY)  # noqa: E731
    return Case(
        name,
        (stream(f"id: {id}\ndata: a\n\n", headers=ANY), after),
        (message("a", id), LOST, message("GET True", id), LOST),
        origin="other",
        differs=CURSOR,
    )


ORIGINS = (
    Case(
        "a stream of another origin",
        (stream("data: a\n\n", headers=ANY),),
        (message("a"), LOST),
        origin="other",
    ),
    permits("another origin that permits nobody", {}),
    permits("another origin that permits a third", {"Access-Control-Allow-Origin": "http://example.org"}),
    permits("another origin with an empty permission", {"Access-Control-Allow-Origin": ""}),
    permits("another origin that permits all, but no cookies", ANY, {"withCredentials": True}),
    cookies("cookies go to another origin if the page wants it", "cookie", {"withCredentials": True}),
    cookies("cookies do not go to another origin", "no cookie", {"withCredentials": False}),
    cookies("cookies do not go to another origin by default", "no cookie", {}),
    unusual("a usual id", "abc"),
    unusual("an id of 255 characters", "a" * 255),
    unusual("an id with a character that a header must not have", "e5p3n<3k0k0s"),
)


def tells(name: str, header: str, value: str) -> Case:
    return Case(name, (echo(lambda request: request.headers.get(header, "none")),), (message(value), LOST))


REQUESTS = (
    tells("the client asks for a stream", "accept", "text/event-stream"),
    tells("the client asks past all caches", "cache-control", "no-cache"),
    tells("a request to the same origin has no origin", "origin", "none"),
    Case("the method is GET", (echo(lambda request: request.method),), (message("GET"), LOST)),
    Case(
        "the address may be relative",
        (echo(lambda request: request.path),),
        (message("/play/relative"), LOST),
        origin="play/relative",
    ),
    Case(
        "a stream ends and the client comes back",
        (stream("data: a\n\n"), stream("data: b\n\n")),
        (message("a"), LOST, message("b"), LOST),
    ),
    Case(
        "a stream ends before its first event", (stream(), stream("data: b\n\n")), (LOST, message("b"), LOST)
    ),
    Case("close in a handler", (stream("data: close\n\ndata: no\n\n", stays=True),), (message("close"),)),
)

SCHEMES = (
    *(
        Case(
            f"the scheme {address.partition(':')[0]}",
            (stream(),),
            (["throws", "TypeError"],),
            origin=address,
            differs="an address that is neither http nor https",
            connections=1,
        )
        for address in (
            "ftp://example.invalid/",
            "about:blank",
            "mailto:a@example.invalid",
            "javascript:alert(1)",
        )
    ),
    Case(
        "a host that does not exist",
        (stream(),),
        (LOST,),
        origin="http://example.invalid/",
        differs=NETWORK,
        connections=1,
    ),
)
