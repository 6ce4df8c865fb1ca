"""An app whose users send tokens of an identity provider. Its view finds the user in many ways."""

from __future__ import annotations

import os
from collections.abc import Callable

import gevent
from flask import Flask, request

from flask_sse_push import BearerJWT, sse
from flask_sse_push.auth import jwks_client, signing_keys
from flask_sse_push.errors import Refused
from tests.support.provider import AUDIENCE, ISSUER

# A test holds the answers of the provider back, and a busy machine is slow.
jwks_client.TIMEOUT = signing_keys.WAIT = 60.0
signing_keys.HUNG = 120.0

app = Flask(__name__)
identify = BearerJWT.from_jwks(os.environ["KEYS_URL"], issuer=ISSUER, audience=AUDIENCE)
sse.identify(identify)
app.register_blueprint(sse, url_prefix="/stream")


def user() -> str:
    try:
        found = identify(request._get_current_object())  # type: ignore[attr-defined]
    except Refused as refused:
        return str(refused.status)
    return str(found and found.user_id)


def in_pool(call: Callable[[], str]) -> str:
    sent = request._get_current_object()  # type: ignore[attr-defined]

    def within() -> str:
        with app.request_context(sent.environ):
            return call()

    return str(gevent.get_hub().threadpool.apply(within))


def in_child(call: Callable[[], str]) -> str:
    """Calls `call` in the child of a fork. Returns `ada` if the call has done so."""
    pid = os.fork()
    if pid == 0:
        os._exit(0 if call() == "ada" else 1)
    return "ada" if os.waitpid(pid, 0)[1] == 0 else "the child failed"


WAYS: dict[str, Callable[[Callable[[], str]], str]] = {
    "greenlet": lambda call: call(),
    "threadpool": in_pool,
    "child": in_child,
}


@app.get("/user/<way>")
def found(way: str) -> str:
    return WAYS[way](user)
