"""An identity provider: an HTTP server that publishes the keys with which it signs tokens."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms
from werkzeug import Request, Response
from werkzeug.serving import WSGIRequestHandler, make_server

#: What the tokens of a provider claim, if a test does not say otherwise.
ISSUER, AUDIENCE = "https://id.example", "push"


@cache
def private_key(kind: str) -> Any:
    """Returns a key for an algorithm, such as `RS256`. Another name, such as `RS256-new`, is another key."""
    algorithm = kind.partition("-")[0]
    if algorithm[:2] in ("RS", "PS"):
        return rsa.generate_private_key(65537, 1024 if kind.endswith("-short") else 2048)
    curves: dict[str, Callable[[], ec.EllipticCurve]] = {
        "ES256": ec.SECP256R1,
        "ES384": ec.SECP384R1,
        "ES512": ec.SECP521R1,
        "ES256K": ec.SECP256K1,
    }
    if algorithm in curves:
        return ec.generate_private_key(curves[algorithm]())
    return ed25519.Ed25519PrivateKey.generate()


def public_jwk(kind: str, **fields: Any) -> dict[str, Any]:
    """Returns the public part of a key as a member of a JWKS. A field with the value None is left out."""
    algorithm = get_default_algorithms()[kind.partition("-")[0]]
    jwk = algorithm.to_jwk(private_key(kind).public_key(), as_dict=True)
    jwk = {**jwk, "key_ops": None, "kid": kind, "use": "sig", "alg": kind.partition("-")[0], **fields}
    return {name: value for name, value in jwk.items() if value is not None}


def token(kind: str = "RS256", kid: str | None = "", **claims: Any) -> str:
    """Returns a signed token. A claim with the value None is left out.

    :param kid: the id of the key in the header; by default `kind`, and None leaves it out.
    """
    now = time.time()
    claims = {"sub": "ada", "iss": ISSUER, "aud": AUDIENCE, "exp": now + 60, **claims}
    headers = {} if kid is None else {"kid": kid or kind}
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, private_key(kind), kind.partition("-")[0], headers=headers)


class Provider:
    """The server of an identity provider. A test may change all fields while the server runs."""

    def __init__(self, certificate: tuple[str, str] | None = None) -> None:
        self.keys: list[Any] = [public_jwk("RS256")]
        self.body: bytes | None = None  # sent in place of the keys
        self.status = 200
        self.headers: dict[str, str] = {}
        self.fetches = 0
        self.at_once = 0  # how many requests the server answers now
        self.most_at_once = 0
        self.answers = threading.Event()  # an answer waits for it
        self.answers.set()
        self._lock = threading.Lock()
        self._server = make_server(
            "127.0.0.1", 0, self._answer, threaded=True, request_handler=_Quiet, ssl_context=certificate
        )
        origin = "http://127.0.0.1" if certificate is None else "https://localhost"
        self.url = f"{origin}:{self._server.server_port}/keys"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def _answer(self, environ: Any, start_response: Any) -> Any:
        with self._lock:
            self.fetches += 1
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        self.answers.wait(60)
        with self._lock:
            self.at_once -= 1
        body = json.dumps({"keys": self.keys}).encode() if self.body is None else self.body
        assert Request(environ).path == "/keys"
        return Response(body, self.status, self.headers)(environ, start_response)

    def close(self) -> None:
        self.answers.set()
        self._server.shutdown()
        self._server.server_close()


class _Quiet(WSGIRequestHandler):
    def log(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def provider(certificate: tuple[str, str] | None = None) -> Iterator[Provider]:
    """Runs an identity provider until the block ends.

    :param certificate: the files of a certificate for `localhost` and its key; None for plain HTTP.
    """
    made = Provider(certificate)
    try:
        yield made
    finally:
        made.close()
