"""The response of a stream, which stays right whatever the app's `after_request` hooks do with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from flask import Flask, Response, current_app, has_request_context, session
from werkzeug.datastructures import Headers

from ..transports.base import TransportStream
from ..transports.head import Obstacle, report

_SKIP = "skip streams in the hook: `if response.is_streamed: return response`"
_ENDLESS = f"this response is a stream of server-sent events, so its body cannot be read as a whole; {_SKIP}"
_CLOSED = (
    "an after_request hook or a WSGI middleware closed a stream's response before the server had sent it; "
    "let responses with the mimetype text/event-stream pass unchanged"
)
_ENCODE = "exclude text/event-stream from that hook, and set SSE_PUSH_HTTP_COMPRESSION to compress streams"

#: Headers that describe the bytes of the body, in lower case.
_OF_BODY = frozenset(("content-length", "content-encoding", "transfer-encoding"))
#: The header about the body that the response of a compressed stream has.
_GZIP = [("Content-Encoding", "gzip")]


class StreamBody:
    """The iterable in `StreamResponse.response`. Yields nothing before the server begins the response.

    A hook that reads the body of a stream would wait for ever, and would take the events from the client.
    """

    chunks: Iterator[bytes]
    opened = False  # whether the server reads the body
    closed = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self.closed:
            raise RuntimeError(_CLOSED)
        if not self.opened:
            if has_request_context():  # the server reads the body after the request context has ended
                raise RuntimeError(_ENDLESS)
            self.opened = True
        return next(self.chunks)

    def close(self) -> None:
        self.closed = True
        close = getattr(self.chunks, "close", None)
        if close is not None:
            close()


class ServedBody:
    """The iterable that the server gets. It fails if a middleware closes it and then hands it on.

    Without the failure, the client would get an empty body again and again, and nobody would be told.
    """

    __slots__ = ("_chunks", "_close", "_closed")

    def __init__(self, chunks: Iterator[bytes], close: Callable[[], object]) -> None:
        self._chunks = chunks
        self._close = close
        self._closed = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._closed:
            raise RuntimeError(_CLOSED)
        return next(self._chunks)

    def close(self) -> None:
        self._closed = True
        self._close()


class StreamResponse(Response):
    """A response with a stream as its body.

    Hooks find `is_streamed` and `direct_passthrough` true, as for a file that is sent. A hook that reads the
    body gets a RuntimeError. Headers that contradict the body are removed when the server asks for them.

    :param chunks: the body, an iterator of bytes.
    :param headers: the headers. The response uses a `Headers` object itself, without a copy.
    :param stream: the stream that makes the body; None if the body is a run.
    """

    def __new__(cls, *_: object) -> StreamResponse:
        """Returns an object that is also an instance of the app's `response_class`.

        Flask would otherwise turn the response into a plain object of that class.
        """
        app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
        made: StreamResponse = object.__new__(_combined(app.response_class))  # type: ignore[arg-type]
        return made

    def __init__(
        self,
        chunks: Iterator[bytes],
        headers: Headers | Mapping[str, str],
        stream: TransportStream | None = None,
    ) -> None:
        self._body = StreamBody()
        self._body.chunks = chunks
        self._stream = stream
        self._of_body = _GZIP if stream is not None and stream.compression is not None else []
        # An app's own class may have other parameters, and Flask does not call its constructor either.
        Response.__init__(self, self._body, headers=headers, direct_passthrough=True)

    # -- called by hooks ---------------------------------------------------------------------------------

    def _ensure_sequence(self, mutable: bool = False) -> None:
        if self.response is self._body:
            raise RuntimeError(_ENDLESS)
        super()._ensure_sequence(mutable)

    def make_sequence(self) -> None:
        """See `werkzeug.Response.make_sequence`.

        :raises RuntimeError: unless a hook has replaced the body.
        """
        self._ensure_sequence()

    def iter_encoded(self) -> Iterator[bytes]:
        """Returns an iterator over the body. It raises RuntimeError until the server begins the response."""
        return self._body if self.response is self._body else super().iter_encoded()

    def set_cookie(self, key: str, *args: Any, **options: Any) -> None:
        """Sets a cookie, but does not refresh the cookie of a session that this request has not changed.

        Flask refreshes the cookie of a permanent session in each response. The response to another request,
        which changes the session, may arrive first; the refreshed cookie would then undo the change.
        """
        if key != current_app.config["SESSION_COOKIE_NAME"] or session.modified:
            super().set_cookie(key, *args, **options)

    # -- called when the server begins the response ------------------------------------------------------

    def get_wsgi_headers(self, environ: dict[str, Any]) -> Headers:
        """Returns the headers, without those of a hook that contradict the body of a stream."""
        if self.is_sequence:  # a hook has replaced the stream by some bytes
            return super().get_wsgi_headers(environ)
        found = [pair for pair in self.headers if pair[0].lower() in _OF_BODY]
        if found != self._of_body:
            self._correct()
        return self.headers

    def get_app_iter(self, environ: dict[str, Any]) -> Iterable[bytes]:
        """Returns the body, and closes the response when the server has sent it.

        :raises RuntimeError: if a hook has closed the response.
        """
        status = self.status_code
        self._body.opened = True
        chunks = self._body.chunks
        if environ["REQUEST_METHOD"] == "HEAD" or status < 200 or status in (204, 304):
            chunks = iter(())
        elif self._body.closed:
            raise RuntimeError(_CLOSED)
        elif self.response is not self._body:
            self._note_replaced()
            chunks = super().iter_encoded()
        return ServedBody(chunks, self.close)

    def _correct(self) -> None:
        """Removes headers that do not fit the body of a stream."""
        for name in ("Content-Length", "Transfer-Encoding"):
            self._remove(name)
        if self.response is not self._body:  # the hook that replaced the body knows its encoding
            return
        encoding = self.headers.get("Content-Encoding", "identity")
        if encoding == "identity":
            self.headers.remove("Content-Encoding")
        elif encoding != "gzip" or not self._of_body:
            self._remove("Content-Encoding")
        if self._stream is not None and "Content-Encoding" not in self.headers:
            self._stream.compression = None

    def _remove(self, name: str) -> None:
        value = self.headers.get(name)
        if value is not None:
            self.headers.remove(name)
            found = f"an after_request hook gave a stream's response the header {name}: {value}"
            report(name, f"{found}, which does not fit its body; the header was removed; {_SKIP}")

    def _note_replaced(self) -> None:
        """Sends all chunks of the stream through the iterable that a hook has put in place of the body."""
        encoding = self.headers.get("Content-Encoding")
        found = f"an after_request hook replaced a stream's response body by a {type(self.response).__name__}"
        if encoding is not None and not self._of_body:
            found = f"{found} with Content-Encoding: {encoding}, which may delay events; {_ENCODE}"
            report("replaced", found)
        if self._stream is not None:
            self._stream.refuse_handover(Obstacle("replaced", found))


@lru_cache(maxsize=16)
def _combined(response_class: type[Response]) -> type[StreamResponse]:
    """Returns a class that inherits from `StreamResponse` and from the app's class of responses."""
    if issubclass(StreamResponse, response_class):
        return StreamResponse
    return type("StreamResponse", (StreamResponse, response_class), {})
