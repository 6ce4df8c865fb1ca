"""Checks the head of a response: may a stream send the rest of this response itself?"""

from __future__ import annotations

import logging
from typing import NamedTuple

logger = logging.getLogger(__name__)

#: The bytes that end the head of a response.
HEAD_END = b"\r\n\r\n"

_WHO = "set by an after_request hook or a WSGI middleware"


class Obstacle(NamedTuple):
    """What keeps a stream from taking the connection of its response."""

    kind: str  # for `report`
    found: str  # what was found, for the log
    length: int | None = None  # how many bytes of the body the client reads; None if the head has no limit


#: The server or a middleware has asked for more of the body, but none of the body has reached the socket.
NOT_SENT = Obstacle(
    "not sent", "a WSGI middleware collects the response body, or holds back the body's first bytes"
)
#: Other bytes than those of the stream have reached the socket.
CHANGED = Obstacle("changed", "a WSGI middleware changes the response body")

#: The kinds of texts that `report` has logged.
_logged: set[str] = set()


def report(kind: str, text: str) -> None:
    """Logs a text at level ERROR, once per process for each kind of text."""
    if kind not in _logged:
        _logged.add(kind)
        logger.error("%s", text)


def obstacle_in(head: bytes, *, chunked: bool, encoding: bytes | None) -> Obstacle | None:
    """Returns what keeps a stream from sending the body that belongs to this head; None if nothing does.

    :param head: the bytes of the head, with the blank line at its end.
    :param chunked: whether the stream sends the body in chunks (RFC 9112, 7.1). If not, the end of the
        connection ends the body (RFC 9112, 6.3).
    :param encoding: the content encoding of the stream's body, in lower case; None if there is none.
    """
    lower = head.lower()
    if (
        lower[8:12] == b" 200"
        and b"\r\ncontent-length:" not in lower
        and (b"\r\ntransfer-encoding: chunked\r\n" in lower) is chunked
        and lower.count(b"\r\ncontent-encoding:") == (encoding is not None)
        and (encoding is None or b"\r\ncontent-encoding: %b\r\n" % encoding in lower)
    ):
        return None
    return _found_in(head, chunked, encoding)


def _found_in(head: bytes, chunked: bool, encoding: bytes | None) -> Obstacle:
    status, *lines = head.removesuffix(HEAD_END).decode("latin-1").split("\r\n")
    fields: dict[str, str] = {}
    for name, _, value in (line.partition(":") for line in lines):
        name = name.lower()
        fields[name] = f"{fields[name]}, {value.strip()}" if name in fields else value.strip()
    length, encodings = fields.get("content-length"), fields.get("content-encoding")
    if length is not None:
        found = f"the head of a stream's response has Content-Length: {length}, {_WHO}"
        return Obstacle("length", found, int(length) if length.isdecimal() else None)
    if encodings is not None and encodings.lower() != (encoding or b"").decode():
        return Obstacle(
            "encoding", f"the head of a stream's response has Content-Encoding: {encodings}, {_WHO}"
        )
    if encodings is None and encoding is not None:
        found = f"the head of a stream's response lacks Content-Encoding: {encoding.decode()}, removed by"
        return Obstacle("encoding", f"{found} an after_request hook or a WSGI middleware")
    if (fields.get("transfer-encoding", "").lower() == "chunked") is not chunked:
        return Obstacle("framing", "gunicorn does not mark the end of a stream's response in the usual way")
    return Obstacle("status", f"a stream's response has the status {status.partition(' ')[2]}, {_WHO}")
