"""An identity provider for clients without a browser: it gives users tokens, and publishes its keys (JWKS).

In a real system the provider is another server, such as Keycloak or Auth0. The workers fetch its keys over
HTTP here too. The provider signs with a new key every ten minutes, and no open or new stream notices.
"""

from __future__ import annotations

import hashlib
import os
import time
from functools import lru_cache

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from flask import Blueprint, abort, current_app, request
from jwt.algorithms import ECAlgorithm
from werkzeug.security import check_password_hash

from flask_sse_push import BearerJWT, sse
from flask_sse_push.auth.flask_login import session_identity

from . import signin

#: The address of the provider, which is this app. gunicorn.conf.py puts it into the environment.
ISSUER = os.environ.get("EXAMPLE_ISSUER") or "http://127.0.0.1:5000"
AUDIENCE = "example_app"
#: Seconds for which the provider signs with one key, and seconds for which a token is good.
KEY_SECONDS, TOKEN_SECONDS = 600, 300

page = Blueprint("issuer", __name__, url_prefix="/issuer")

sse.identify(
    BearerJWT.from_jwks(
        f"{ISSUER}/issuer/keys",
        issuer=ISSUER,
        audience=AUDIENCE,
        user=lambda claims: signin.load(str(claims.get("sub"))),
    )
)
sse.identify(session_identity)  # browsers have a session of flask-login


@lru_cache(8)
def private_key(secret: str, number: int) -> ec.EllipticCurvePrivateKey:
    """Returns a key of the provider. All workers make the same keys, because they share the secret."""
    digest = hashlib.sha256(f"{secret} {number}".encode()).digest()
    return ec.derive_private_key(int.from_bytes(digest) >> 1, ec.SECP256R1())


def number_now() -> int:
    """Returns the number of the key that the provider signs with now."""
    return int(time.time() // KEY_SECONDS)


@page.get("/keys")
def keys() -> dict[str, list[dict[str, str]]]:
    """Returns the public keys: the previous one, which older tokens need, the current one and the next."""
    published = []
    for number in range(number_now() - 1, number_now() + 2):
        public = private_key(str(current_app.secret_key), number).public_key()
        published.append({**ECAlgorithm.to_jwk(public, as_dict=True), "kid": str(number), "use": "sig"})
    return {"keys": published}


@page.post("/token")
def token() -> str:
    """Returns a token for a user who sends name and password. Answers 401 if one of them is wrong."""
    user = signin.USERS.get(request.form.get("name", ""))
    if user is None or not check_password_hash(user.password_hash, request.form.get("password", "")):
        abort(401, "that name and password do not go together")
    number, now = number_now(), int(time.time())
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": user.id, "iat": now, "exp": now + TOKEN_SECONDS}
    key = private_key(str(current_app.secret_key), number)
    return jwt.encode(claims, key, "ES256", headers={"kid": str(number)})
