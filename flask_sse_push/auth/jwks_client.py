"""Reads the public keys of an identity provider from its JWKS, a JSON document with keys (RFC 7517).

PyJWT's client would wait for a provider that sends its answer slowly, and read an answer of any size. So
this client has limits for both, and leaves out keys that must not check tokens.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
import urllib.request
from collections.abc import Callable, Collection, Iterator
from http.client import HTTPResponse
from ipaddress import ip_address
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

from jwt import PyJWK, PyJWKClient

from ..brokers import forks
from ..errors import ConfigError, shown

#: Seconds that one fetch of the keys may take.
TIMEOUT = 5.0
#: Largest answer of a provider that is read, in bytes. A usual one has some thousand.
MAX_BYTES = 500_000
#: At most this many keys may be in a JWKS: making each one ready takes time in which the worker does nothing
#: else.
MAX_KEYS = 100
#: The lengths of RSA keys that are used, in bits: shorter keys are weak (RFC 7518, 3.3), longer ones slow.
RSA_BITS = range(2048, 8193)

_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
#: The algorithms that fit a key, by its fields `kty` and `crv` (RFC 7518, 3.1; RFC 8037; RFC 8812). A shared
#: secret (`oct`) fits none: whoever can read the JWKS could sign tokens with it.
_ALGORITHMS: dict[tuple[object, object], tuple[str, ...]] = {
    ("RSA", None): _RSA,
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("EC", "secp256k1"): ("ES256K",),
    ("OKP", "Ed25519"): ("EdDSA",),
}
#: The algorithms that tokens may use, if the app does not list any.
ALGORITHMS = tuple(name for names in _ALGORITHMS.values() for name in names)


def checked_url(url: Any, *, allow_http: bool) -> str:
    """Returns the address of a JWKS.

    :raises ConfigError: if `url` is not an address, if it has a user name or a password, or if it begins with
        `http:`, leads to another machine, and `allow_http` is not set.
    """
    expected = "an https: address, such as https://id.example.com/.well-known/jwks.json"
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises ValueError for a port that is not a number
        is_clean = isinstance(url, str) and url.isascii() and url.isprintable() and " " not in url
    except (AttributeError, TypeError, ValueError):
        raise ConfigError("url", url, expected) from None
    if is_clean and "@" in parts.netloc:
        raise ConfigError("url", "***", f"{expected}, without a user name and a password")
    if not is_clean or parts.scheme not in ("https", "http") or not parts.hostname:
        raise ConfigError("url", url, expected)
    if parts.scheme == "http" and not allow_http and not _is_this_machine(parts.hostname):
        raise ConfigError(
            "url", url, f"{expected}. Over http: others could change the keys (allow_http=True)"
        )
    return str(url)


def _is_this_machine(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


class JwksClient(PyJWKClient):
    """PyJWT's client for one JWKS, with limits. It opens no connection before the first fetch.

    :param algorithms: the algorithms that tokens may use.
    """

    def __init__(self, url: str, algorithms: Collection[str]) -> None:
        headers = {"Accept": "application/json", "User-Agent": "flask-sse-push"}
        super().__init__(url, cache_keys=False, cache_jwk_set=False, headers=headers, timeout=TIMEOUT)
        self._algorithms = algorithms
        self._socket: socket.socket | None = None  # that of the newest connection

    def fetch_keys(self) -> tuple[PyJWK, ...]:
        """Fetches the keys that may check tokens, one `PyJWK` for each key and each algorithm that fits it.

        Blocks, usually for at most TIMEOUT seconds; `abort` ends it in any case.

        :raises Exception: if the provider does not answer, or if its answer has no such keys.
        """
        return tuple(self.get_jwk_set(refresh=True))

    def fetch_data(self) -> dict[str, Any]:
        """Called by PyJWT's client, which makes the keys. Returns the JWKS, without the unusable keys."""
        until = time.monotonic() + TIMEOUT

        def note(used: socket.socket) -> None:
            self._socket = used
            _check_time(until)  # several addresses of the provider may have taken a timeout each

        opener = urllib.request.build_opener(_NoRedirect, _Http(note), _Https(note))
        try:
            request = urllib.request.Request(self.uri, headers=self.headers)
            with opener.open(request, timeout=TIMEOUT) as response:
                found = json.loads(_body(response, until))
        except HTTPError as error:
            error.close()
            moved = error.headers.get("Location") if 300 <= error.code < 400 else None
            advice = f" to {shown(moved)}, and redirects are not followed: change url" if moved else ""
            raise ValueError(f"it answered {error.code}{advice}") from None
        return {"keys": list(self._usable(found))}

    def _usable(self, jwk_set: Any) -> Iterator[dict[str, Any]]:
        """Yields the usable keys of a JWKS: one dictionary for each key and algorithm.

        :raises ValueError: if the JWKS is not valid, or has no usable key.
        """
        keys = jwk_set.get("keys") if isinstance(jwk_set, dict) else None
        if not isinstance(keys, list) or len(keys) > MAX_KEYS:
            raise ValueError(f"it is no JSON object with a list `keys` of at most {MAX_KEYS} keys")
        is_empty = True
        for key in keys:
            names = [name for name in _algorithms_of(key) if name in self._algorithms]
            for name in names if names and _is_sound(key) else ():
                is_empty = False
                yield {**key, "alg": name}
        if is_empty:
            raise ValueError(f"it has no public key for signatures with {', '.join(self._algorithms)}")

    def abort(self) -> None:
        """Ends the newest connection, so that a fetch that hangs fails at once. Does not block."""
        if self._socket is None:
            return
        # A socket of gevent must not be used in another thread than its own. A copy may be.
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._socket.fileno())) as copy:
            copy.shutdown(socket.SHUT_RDWR)

    def after_fork(self) -> None:
        """Closes the child's copy of a connection of its parent."""
        if self._socket is not None:
            forks.close_copy(self._socket)


def _body(response: HTTPResponse, until: float) -> bytes:
    """Returns the body of a response.

    :param until: the monotonic time at which the whole body must have come.
    :raises ValueError: if the status is not 200, or if the body has more than MAX_BYTES.
    :raises TimeoutError: if the body has not come in time.
    """
    if response.status != 200:
        raise ValueError(f"it answered {response.status}")
    body = b""
    while part := response.read1(65_536):
        body += part
        if len(body) > MAX_BYTES:
            raise ValueError(f"the answer has more than {MAX_BYTES:,} bytes")
        _check_time(until)
    return body


def _check_time(until: float) -> None:
    if time.monotonic() > until:
        raise TimeoutError(f"the whole answer did not come in {TIMEOUT:g} seconds")


def _algorithms_of(key: Any) -> Collection[str]:
    """Returns the algorithms for which a key of a JWKS may check signatures; none for an unusable key."""
    if not isinstance(key, dict) or "d" in key or key.get("use", "sig") != "sig":  # `d`: a private key
        return ()
    operations = key.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        return ()
    kind, curve, named = key.get("kty"), key.get("crv"), key.get("alg")
    if not isinstance(kind, str) or not isinstance(curve, str | None) or not _is_id(key.get("kid")):
        return ()
    fitting = _ALGORITHMS.get((kind, curve), ())
    return fitting if named is None else tuple(name for name in fitting if name == named)


def _is_id(kid: object) -> bool:
    return kid is None or isinstance(kid, str)


def _is_sound(key: dict[str, Any]) -> bool:
    """Whether the numbers of a key are valid, and, for an RSA key, whether `RSA_BITS` has its length."""
    try:
        made = PyJWK(key)
    except Exception:  # each version of PyJWT raises other errors
        return False
    return made.key_type != "RSA" or made.key.key_size in RSA_BITS


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: it could lead to another host, or to a file."""

    def redirect_request(self, *_: Any) -> None:
        return None


class _Noting(urllib.request.AbstractHTTPHandler):
    """A handler of `urllib` that calls `note` with the socket of each new connection."""

    def __init__(self, note: Callable[[socket.socket], None]) -> None:
        super().__init__()
        self._note = note

    def do_open(self, http_class: Callable[..., Any], req: Any, **options: Any) -> HTTPResponse:
        def make_noting(*args: Any, **more: Any) -> Any:
            connection = http_class(*args, **more)
            connect = connection.connect

            def connect_and_note() -> None:
                connect()
                self._note(connection.sock)

            connection.connect = connect_and_note
            return connection

        return super().do_open(make_noting, req, **options)


class _Http(_Noting, urllib.request.HTTPHandler):
    pass


class _Https(_Noting, urllib.request.HTTPSHandler):
    pass
