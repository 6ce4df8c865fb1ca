"""Bearer tokens: which are accepted, and that all other texts are refused."""

from __future__ import annotations

import base64
import json
import time
from types import SimpleNamespace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from flask_sse_push import BearerJWT, ConfigError
from flask_sse_push.auth.bearer import TokenUser
from flask_sse_push.errors import ErrorCode, Refused

KEY = "a secret of thirty-two bytes, at least"
OTHER = "another secret, which is as long as it"


def token(key: Any = KEY, algorithm: str = "HS256", **claims: Any) -> str:
    claims = {"sub": "ada", "exp": time.time() + 60, **claims}
    return jwt.encode({k: v for k, v in claims.items() if v is not None}, key, algorithm)


def request(authorization: str | None) -> Any:
    return SimpleNamespace(headers={} if authorization is None else {"Authorization": authorization})


def bearer(text: str) -> Any:
    return request(f"Bearer {text}")


def code_of(identify: BearerJWT, text: str) -> int:
    with pytest.raises(Refused) as caught:
        identify(bearer(text))
    assert caught.value.status == 401
    assert len(text) < 40 or text not in caught.value.message
    return int(caught.value.code)


IDENTIFY = BearerJWT(KEY, algorithms=["HS256"])
#: For one service only.
STRICT = BearerJWT(KEY, algorithms=["HS256"], audience="push", issuer="https://id.example", leeway=30)


def test_a_valid_token_names_its_user_and_when_it_expires() -> None:
    expires = int(time.time()) + 60
    found = IDENTIFY(bearer(token(exp=expires, team="x")))
    assert found is not None
    assert found.user == TokenUser("ada", {"sub": "ada", "exp": expires, "team": "x"})
    assert (found.user_id, found.expires) == ("ada", expires)


@pytest.mark.parametrize("header", [None, "", "Basic YTpi", "Bearer", "Token abc"])
def test_a_request_without_a_token_has_no_user(header: str | None) -> None:
    if header == "Bearer":
        assert code_of(IDENTIFY, "") == ErrorCode.AUTH_FAILED
    else:
        assert IDENTIFY(request(header)) is None


def test_the_scheme_may_be_written_in_any_case() -> None:
    assert IDENTIFY(request(f"bEARER  {token()}")) is not None


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": None},
        {"exp": "soon"},
        {"exp": [1]},
        {"exp": float("inf")},
        {"exp": 10**400},
        {"sub": None},
        {"sub": ""},
        {"sub": "half a character: \ud83d"},
        {"aud": "push"},  # made for another audience, where the app names none
        {"nbf": time.time() + 3600},
    ],
)
def test_a_token_with_odd_claims_is_refused(claims: dict[str, Any]) -> None:
    assert code_of(IDENTIFY, token(**claims)) == ErrorCode.AUTH_FAILED


def test_an_expired_token_has_a_code_of_its_own() -> None:
    assert code_of(IDENTIFY, token(exp=time.time() - 1)) == ErrorCode.AUTH_EXPIRED


def test_leeway_forgives_a_clock_that_differs() -> None:
    right = {"aud": "push", "iss": "https://id.example"}
    found = STRICT(bearer(token(exp=int(time.time()) - 20, **right)))
    assert found is not None
    assert found.expires is not None
    assert found.expires > time.time()
    assert code_of(STRICT, token(exp=time.time() - 40, **right)) == ErrorCode.AUTH_EXPIRED


@pytest.mark.parametrize(
    "leeway", [-1, float("nan"), float("inf"), 10**400, pytest.param(10**5000, id="huge"), "5", None, True]
)
def test_a_leeway_that_is_no_number_of_seconds_is_refused_at_once(leeway: Any) -> None:
    with pytest.raises(ConfigError, match=r"^leeway is .*, but must be a number of seconds"):
        BearerJWT(KEY, algorithms=["HS256"], leeway=leeway)


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"aud": "push"},
        {"iss": "https://id.example"},
        {"aud": "other", "iss": "https://id.example"},
        {"aud": "push", "iss": "https://evil.example"},
    ],
)
def test_audience_and_issuer_must_be_the_apps(claims: dict[str, Any]) -> None:
    assert code_of(STRICT, token(**claims)) == ErrorCode.AUTH_FAILED


def test_another_key_another_algorithm_and_none_at_all_are_refused() -> None:
    assert code_of(IDENTIFY, token(OTHER)) == ErrorCode.AUTH_FAILED
    assert code_of(IDENTIFY, token(KEY * 2, "HS512")) == ErrorCode.AUTH_FAILED
    assert code_of(IDENTIFY, token("", "none")) == ErrorCode.AUTH_FAILED
    _, body, _ = token().split(".")
    head = base64.urlsafe_b64encode(json.dumps({"alg": "none"}).encode()).decode().rstrip("=")
    assert code_of(IDENTIFY, f"{head}.{body}.") == ErrorCode.AUTH_FAILED


def test_a_token_signed_with_the_public_key_as_a_secret_is_refused() -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    identify = BearerJWT(public.decode(), algorithms=["ES256"])
    found = identify(bearer(token(private, "ES256")))
    assert found is not None
    head, body, _ = token(KEY).split(".")
    import hashlib
    import hmac

    signature = hmac.new(public, f"{head}.{body}".encode(), hashlib.sha256).digest()
    forged = f"{head}.{body}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"
    assert code_of(identify, forged) == ErrorCode.AUTH_FAILED


@given(st.text(max_size=300))
def test_any_other_text_is_refused(text: str) -> None:
    assert code_of(IDENTIFY, text) == ErrorCode.AUTH_FAILED


def test_a_text_of_any_length_is_refused() -> None:
    assert code_of(IDENTIFY, "a.b." + "c" * 1_000_000) == ErrorCode.AUTH_FAILED


def test_the_app_may_make_a_user_from_the_claims_or_refuse() -> None:
    identify = BearerJWT(KEY, algorithms=["HS256"], user=lambda claims: claims.get("email"))
    found = identify(bearer(token(email="ada@example")))
    assert found is not None
    assert (found.user, found.user_id) == ("ada@example", "ada@example")
    assert code_of(identify, token()) == ErrorCode.AUTH_FAILED


@pytest.mark.parametrize(
    ("key", "algorithms"),
    [
        (KEY, []),
        (KEY, ["none"]),
        (KEY, ["HS256", "none"]),
        (KEY, ["HS999"]),
        (KEY, ["HS256", "ES256"]),
        ("short", ["HS256"]),
        (KEY, ["HS512"]),
    ],
)
def test_unsafe_algorithms_and_keys_are_refused_when_the_app_starts(key: str, algorithms: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        BearerJWT(key, algorithms=algorithms)
    assert key not in str(caught.value)
