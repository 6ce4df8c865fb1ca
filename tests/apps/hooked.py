"""`tests.apps.plain` with hooks and middlewares that handle responses without a thought for streams.

The request's headers `X-Hook` and `X-Middleware` choose one of each. Hooks are called by `after_request`.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Any

from flask import Response, request, stream_with_context
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.wsgi import ClosingIterator

from flask_sse_push import sse
from flask_sse_push.transports import head
from flask_sse_push.web.routes import EXTENSION

from .plain import app

Hook = Callable[[Any], Any]
#: Headers, in the form that `start_response` gets.
Headers = list[tuple[str, str]]


@app.get("/kinds")
def kinds() -> dict[str, str]:
    """The class of each open stream, by the id of its connection."""
    hub = app.extensions[EXTENSION][sse].services.streaming.hub
    return {connection: type(stream).__name__ for connection, stream in hub._streams.items()}


@app.post("/forget")
def forget() -> str:
    """Makes the worker report each kind of obstacle once more, as a new worker does."""
    head._logged.clear()
    return "forgotten"


@app.get("/run")
def run() -> Response:
    return sse.stream(iter(["one ", "two"]))


# -- hooks ---------------------------------------------------------------------------------------------------


def log_carefully(response: Response) -> None:
    if not response.direct_passthrough:
        app.logger.info("%s", response.get_data())


def swallow(response: Response) -> None:
    for read in (response.get_data, response.freeze, lambda: list(response.response)):
        try:
            read()
        except RuntimeError as error:
            app.logger.info("cannot read: %s", error)


def read_although_passed_through(response: Response) -> None:
    response.direct_passthrough = False
    app.logger.info("%s", response.get_data())


def header(name: str, value: str) -> Hook:
    def hook(response: Response) -> None:
        response.headers[name] = value

    return hook


def wrap(wrapped: Callable[[Any], Any]) -> Hook:
    def hook(response: Response) -> None:
        response.response = wrapped(response.response)

    return hook


def upper(chunks: Iterable[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk.replace(b"live", b"LIVE").replace(b"missed", b"MISSED")


def deflated(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Encodes each chunk so that the client can read it at once."""
    deflate = zlib.compressobj(wbits=31)
    for chunk in chunks:
        yield deflate.compress(chunk) + deflate.flush(zlib.Z_SYNC_FLUSH)
    yield deflate.flush()


def encode(response: Response) -> None:
    response.headers["Content-Encoding"] = "gzip"
    response.response = deflated(response.iter_encoded())


def conditional(response: Response) -> None:
    response.make_conditional(request._get_current_object())  # type: ignore[attr-defined]


def not_modified(response: Response) -> None:
    response.set_etag("v1")
    conditional(response)


def collected(chunks: Iterable[bytes]) -> Iterator[bytes]:
    yield b"".join(chunks)


def closed_at_once(inner: Any) -> Any:
    def outer(environ: Any, start_response: Any) -> Iterable[bytes]:
        body: Any = inner(environ, start_response)
        body.close()
        return body  # type: ignore[no-any-return]

    return outer


#: Hooks that read the body.
READING: dict[str, Hook] = {
    "get_data": lambda response: app.logger.info("%s", response.get_data()),
    "data": lambda response: app.logger.info("%d bytes", len(response.data)),
    "json": lambda response: response.get_json(force=True),
    "freeze": lambda response: response.freeze(),
    "make_sequence": lambda response: response.make_sequence(),
    "add_etag": lambda response: response.add_etag(),
    "list": lambda response: app.logger.info("%s", list(response.response)),
    "iter_encoded": lambda response: hashlib.md5(b"".join(response.iter_encoded())),
    "next": lambda response: next(response.response),
    "stream": lambda response: response.stream.write(b"<!-- timing -->"),
    "compress": lambda response: response.set_data(gzip.compress(response.get_data())),
    "passthrough": read_although_passed_through,
}
#: Hooks that a stream survives without a change.
HARMLESS: dict[str, Hook] = {
    "careful": log_carefully,
    "swallow": swallow,
    "length": lambda response: response.calculate_content_length(),
    "conditional": conditional,
    "etag": lambda response: response.set_etag("v1"),
    "cookie": lambda response: response.set_cookie("seen", "yes"),
    "content_length": header("Content-Length", "512"),
    "transfer_encoding": header("Transfer-Encoding", "chunked"),
    "zstd": header("Content-Encoding", "zstd"),
    "identity": header("Content-Encoding", "identity"),
    "new": lambda response: Response(response.response, response.status, response.headers),
}
#: Hooks that put another iterable in place of the body.
REPLACING: dict[str, Hook] = {
    "generator": wrap(lambda chunks: (chunk for chunk in chunks)),
    "closing": wrap(lambda chunks: ClosingIterator(chunks, lambda: None)),
    "chain": wrap(lambda chunks: chain([b": hello\n"], chunks)),
    "context": wrap(stream_with_context),
    "upper": wrap(upper),
    "encode": encode,
}
#: Hooks that close the response.
CLOSING: dict[str, Hook] = {
    "close": lambda response: response.close(),
    "with": lambda response: response.__exit__(None, None, None),
    "close, new": lambda response: response.close() or HARMLESS["new"](response),
}
OTHER: dict[str, Hook] = {"etag and 304": not_modified, "collected": wrap(collected)}
HOOKS = {**READING, **HARMLESS, **REPLACING, **CLOSING, **OTHER}


@app.after_request
def call_hook(response: Response) -> Response:
    hook = HOOKS.get(request.headers.get("X-Hook", ""))
    changed = hook(response) if hook and response.mimetype == "text/event-stream" else None
    return changed if isinstance(changed, Response) else response


# -- middlewares ---------------------------------------------------------------------------------------------


class Middleware:
    """Changes the head and the body of each response.

    :param body: a function from the body to another body.
    :param headers: a function from the headers to other headers.
    :param status: another status; None keeps the app's.
    """

    def __init__(
        self,
        body: Callable[[Iterable[bytes]], Iterable[bytes]] = lambda chunks: chunks,
        headers: Callable[[Headers], Headers] = lambda headers: headers,
        status: str | None = None,
    ) -> None:
        self.body, self.headers, self.status = body, headers, status

    def __call__(self, inner: Any) -> Any:
        def outer(environ: Any, start_response: Any) -> Iterable[bytes]:
            def start(status: str, headers: Headers, error: Any = None) -> Any:
                return start_response(self.status or status, self.headers(headers), error)

            return self.body(inner(environ, start))

        return outer


def adding(name: str, value: str) -> Callable[[Headers], Headers]:
    return lambda headers: [*headers, (name, value)]


def peek(count: int) -> Callable[[Iterable[bytes]], Iterable[bytes]]:
    """Reads chunks before the body is handed on, to look at them."""

    def peeked(chunks: Iterable[bytes]) -> Iterable[bytes]:
        rest = iter(chunks)
        return chain(list(islice(rest, count)), rest)

    return peeked


def collecting(inner: Any) -> Any:
    """Measures and hashes the whole body."""

    def outer(environ: Any, start_response: Any) -> list[bytes]:
        started: list[Any] = []
        body = b"".join(inner(environ, lambda *arguments: started.append(arguments)))
        status, headers = started[0][:2]
        length = ("Content-Length", str(len(body)))
        start_response(status, [*headers, length, ("ETag", f'"{zlib.crc32(body)}"')])
        return [body]

    return outer


def halves(chunks: Iterable[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk[: len(chunk) // 2]
        yield chunk[len(chunk) // 2 :]


def in_pairs(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Hands on chunks two by two."""
    waiting = b""
    for chunk in chunks:
        if waiting:
            yield waiting + chunk
            waiting = b""
        else:
            waiting = chunk
    yield waiting


def early(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Sends the head before the body's first chunk is there."""
    yield b""
    yield from chunks


def prefix(chunks: Iterable[bytes]) -> Iterator[bytes]:
    yield b": hello\n"
    yield from chunks


def calling_write(inner: Any) -> Any:
    """Uses the old way to send a body (PEP 3333, "The write() Callable")."""

    def outer(environ: Any, start_response: Any) -> Iterable[bytes]:
        writes: list[Callable[[bytes], Any]] = []

        def start(*arguments: Any) -> Any:
            writes.append(start_response(*arguments))
            return writes[0]

        body = inner(environ, start)
        try:
            for chunk in body:
                writes[0](chunk)
        finally:
            body.close()
        return []

    return outer


#: Middlewares that a stream survives without a change.
TRANSPARENT: dict[str, Callable[[Any], Any]] = {
    "proxy": ProxyFix,
    "dispatcher": lambda inner: DispatcherMiddleware(inner, {"/other": inner}),
    "closing": Middleware(lambda chunks: ClosingIterator(chunks, lambda: None)),
    "peek1": Middleware(peek(1)),
    "early": Middleware(early),
    "prefix": Middleware(prefix),
    "write": calling_write,
}
#: Middlewares that must get every chunk of a stream.
CHANGING: dict[str, Callable[[Any], Any]] = {
    "peek2": Middleware(peek(2)),
    "halves": Middleware(halves),
    "pairs": Middleware(in_pairs),
    "comments": Middleware(lambda chunks: (b": hello\n" + chunk for chunk in chunks)),
    "status": Middleware(status="202 ACCEPTED"),
}
#: Middlewares after which clients cannot get events one by one.
BREAKING: dict[str, Callable[[Any], Any]] = {
    "collecting": collecting,
    "length": Middleware(headers=adding("Content-Length", "512")),
    "zstd": Middleware(headers=adding("Content-Encoding", "zstd")),
    "gzip": Middleware(deflated, adding("Content-Encoding", "gzip")),
}
MIDDLEWARES = {"closed": closed_at_once, **TRANSPARENT, **CHANGING, **BREAKING}


def choose(inner: Any) -> Any:
    def outer(environ: Any, start_response: Any) -> Any:
        middleware = MIDDLEWARES.get(environ.get("HTTP_X_MIDDLEWARE", ""), lambda app: app)
        return middleware(inner)(environ, start_response)

    return outer


app.wsgi_app = choose(app.wsgi_app)  # type: ignore[method-assign]

__all__ = ["app"]
