"""One GET request for the doctor, and what arrives of its answer."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import SplitResult, urlsplit

from ..time_limit import shut

#: How long to wait for a connection and for the head of an answer, in seconds.
HEAD_TIMEOUT = 5.0
#: At most how many bytes of an answer are kept.
MAX_BYTES = 100_000


class Target(NamedTuple):
    """The URL of a stream, the headers to send, and which certificates are trusted."""

    url: str
    headers: Mapping[str, str]
    context: ssl.SSLContext

    @property
    def parts(self) -> SplitResult:
        return urlsplit(self.url)

    @property
    def port(self) -> int:
        return self.parts.port or (443 if self.parts.scheme == "https" else 80)

    def below(self, path: str) -> Target:
        """Returns a target with `path` appended to the path of this target, and without a query."""
        parts = self.parts
        return self._replace(url=parts._replace(path=parts.path.rstrip("/") + path, query="").geturl())


class Withheld(Exception):
    """The server accepted the connection, but no head of an answer arrived in time."""


class Answer:
    """The status and headers of an answer, and its body as far as it was read.

    `headers` has the names in lower case. `ended` says whether the server has ended the body.
    """

    def __init__(self, response: http.client.HTTPResponse, raw: Any, started: float) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.started = started
        self.text = b""
        self.ended = False
        self._response, self._raw = response, raw
        is_gzip = self.headers.get("content-encoding", "").lower() == "gzip"
        self._unzip = zlib.decompressobj(31) if is_gzip else None

    def read_until(self, is_enough: Callable[[bytes], bool], seconds: float) -> bool:
        """Reads the body until `is_enough` accepts what was read. Blocks for at most `seconds`.

        Returns False if the time is over or the body has ended before that. Then stop reading.
        """
        deadline = time.monotonic() + seconds
        while not is_enough(self.text):
            left = deadline - time.monotonic()
            if left <= 0 or self.ended or len(self.text) > MAX_BYTES:
                return False
            with contextlib.suppress(TimeoutError, ssl.SSLWantReadError):
                self._raw.settimeout(left)
                self._read()
        return True

    def _read(self) -> None:
        try:
            part = self._response.read1(4096)
            self.ended = not part
            self.text += self._unzip.decompress(part, MAX_BYTES) if self._unzip else part
        except TimeoutError:
            raise
        except (OSError, http.client.HTTPException, zlib.error):
            self.ended = True

    def body(self) -> str:
        """Returns the first 3,000 bytes of the body as text. Blocks for at most a second."""
        self.read_until(lambda text: len(text) > 3000, 1.0)
        return self.text[:3000].decode(errors="replace")

    def json(self) -> dict[str, Any]:
        """Returns the JSON object that is the body; an empty dict if the body is something else."""
        return json_object(self.body())


def json_object(text: str) -> dict[str, Any]:
    """Returns the object that is written in `text` as JSON; an empty dict if there is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


@contextlib.contextmanager
def exchange(target: Target, headers: Mapping[str, str], seconds: float) -> Iterator[Answer]:
    """Sends a GET request, yields the answer when its head is there, and closes the connection at the end.

    :param headers: further headers, besides those of the target.
    :param seconds: after this time the connection is cut, even while the server sends byte by byte.
    :raises Withheld: if the head does not arrive within `HEAD_TIMEOUT`.
    :raises OSError: if the server cannot be reached.
    :raises http.client.HTTPException: if the answer is not valid HTTP.
    :raises ValueError: if the URL or a header has characters that HTTP cannot carry.
    """
    connection = _connection(target)
    try:
        connection.connect()
        with _cut_after(seconds, connection.sock) as is_cut:
            yield _head(connection, target, headers, is_cut)
    finally:
        connection.close()


@contextlib.contextmanager
def _cut_after(seconds: float, raw: Any) -> Iterator[threading.Event]:
    """Cuts a connection after `seconds`, unless the block has ended. Yields a flag that is set just before.

    `Timer.finished` would be set after the cut, which already wakes the reading thread.
    """
    is_cut = threading.Event()

    def cut() -> None:
        is_cut.set()
        shut(raw)

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield is_cut
    finally:
        timer.cancel()


def _connection(target: Target) -> http.client.HTTPConnection:
    host, port = target.parts.hostname or "", target.port
    if target.parts.scheme == "https":
        return http.client.HTTPSConnection(host, port, timeout=HEAD_TIMEOUT, context=target.context)
    return http.client.HTTPConnection(host, port, timeout=HEAD_TIMEOUT)


def _head(
    connection: http.client.HTTPConnection,
    target: Target,
    headers: Mapping[str, str],
    is_cut: threading.Event,
) -> Answer:
    raw, started = connection.sock, time.monotonic()
    path = (target.parts.path or "/") + (f"?{target.parts.query}" if target.parts.query else "")
    with _cut_after(HEAD_TIMEOUT, raw) as is_late:
        try:
            connection.request("GET", path, headers={**headers, **target.headers})
            return Answer(connection.getresponse(), raw, started)
        except TimeoutError as error:
            raise Withheld from error
        except (OSError, http.client.HTTPException) as error:
            if is_late.is_set() or is_cut.is_set():
                raise Withheld from error
            raise
