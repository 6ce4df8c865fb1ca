"""Which addresses, answers and keys of an identity provider are used, and that all others are refused."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import RSAAlgorithm, get_default_algorithms
from werkzeug.serving import make_ssl_devcert

from flask_sse_push import BearerJWT, ConfigError
from flask_sse_push.auth import jwks_client, signing_keys
from flask_sse_push.errors import Refused
from tests.support.dripping import dripping
from tests.support.provider import AUDIENCE, ISSUER, Provider, private_key, provider, public_jwk, token


@pytest.fixture(scope="module")
def running() -> Iterator[Provider]:
    with provider() as running:
        yield running


@pytest.fixture
def idp(running: Provider) -> Provider:
    running.keys, running.body, running.status, running.headers = [public_jwk("RS256")], None, 200, {}
    running.fetches = 0
    return running


def bearer(url: str, **options: Any) -> BearerJWT:
    return BearerJWT.from_jwks(url, **{"issuer": ISSUER, "audience": AUDIENCE, **options})


def status(url: str, text: str, **options: Any) -> int:
    """Returns 200, or the status with which the token is refused."""
    request = SimpleNamespace(headers={"Authorization": f"Bearer {text}"})
    try:
        found = bearer(url, **options)(request)
    except Refused as refused:
        return refused.status
    return 200 if found is not None and found.user_id == "ada" else 0


# -- addresses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        *(
            "file:///etc/passwd",
            "ftp://id.example/keys",
            "data:application/json,{}",
            "id.example/keys",
            "",
            None,
        ),
        *(
            "https://",
            "https:///keys",
            "https://id.example:port/",
            "https://id.example/a b",
            "https://id.ex\n/",
        ),
        *(
            "http://id.example/keys",
            "http://127.0.0.1.example/",
            "http://localhost.example/",
            "http://10.0.0.1/",
        ),
        *("https://ada:secret@id.example/keys", "http://localhost@id.example/", b"https://id.example/", 7),
        *("https://[::1", "https://id.exämple/"),
    ],
)
def test_an_address_that_is_not_safe_is_refused_when_the_app_starts(url: Any) -> None:
    with pytest.raises(ConfigError, match=r"^url is .*, but must be an https: address") as caught:
        bearer(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://id.example/keys",
        "HTTPS://id.example",
        "http://localhost/",
        "http://127.0.0.2:8/",
        "http://[::1]/",
    ],
)
def test_https_and_this_machine_are_allowed_and_nothing_is_fetched_yet(url: str) -> None:
    bearer(url)


def test_an_app_may_allow_http() -> None:
    bearer("http://id.internal/keys", allow_http=True)


@pytest.mark.parametrize(
    ("options", "begin"),
    [
        ({"algorithms": ["HS256"]}, "algorithms is"),
        ({"algorithms": ["RS256", "HS256"]}, "algorithms is"),
        ({"algorithms": ["none"]}, "algorithms is"),
        ({"algorithms": []}, "algorithms is"),
        ({"issuer": ""}, "issuer is"),
        ({"issuer": None}, "issuer is"),
        ({"leeway": -1}, "leeway is"),
    ],
)
def test_unsafe_options_are_refused_when_the_app_starts(options: dict[str, Any], begin: str) -> None:
    with pytest.raises(ConfigError, match=f"^{begin}"):
        bearer("https://id.example/keys", **options)


def test_issuer_and_audience_must_be_given() -> None:
    with pytest.raises(TypeError, match="audience"):
        BearerJWT.from_jwks("https://id.example/", issuer=ISSUER)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="issuer"):
        BearerJWT.from_jwks("https://id.example/", audience=AUDIENCE)  # type: ignore[call-arg]


# -- answers ------------------------------------------------------------------------------------------------

HUGE = json.dumps({"keys": [public_jwk("ES256")], "more": "x" * jwks_client.MAX_BYTES}).encode()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "Expecting value"),
        (b"<html>", "Expecting value"),
        (b'{"keys": [', "Expecting value"),
        (b"\xff\xfe\x00", "decode"),
        (b"[]", "no JSON object with a list"),
        (b"null", "no JSON object with a list"),
        (b'{"keys": {"a": 1}}', "no JSON object with a list"),
        (b'{"keys": "RS256"}', "no JSON object with a list"),
        (b'{"keys": []}', "no public key for signatures"),
        (b'{"keys": [1, null, "a", [], {}]}', "no public key for signatures"),
        (b"[" * 100_000, "recursion"),
        (b"9" * 10_000, "digits"),
        (HUGE, "more than 500,000 bytes"),
        (json.dumps({"keys": [public_jwk("ES256")] * 101}).encode(), "at most 100 keys"),
    ],
    ids=lambda value: repr(value[:12]),
)
def test_an_answer_that_is_no_usable_jwks_is_refused(
    idp: Provider, body: bytes, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    idp.body = body
    assert status(idp.url, token()) == 503
    assert reason in caplog.text
    assert len(caplog.text) < 1000


@pytest.mark.parametrize("code", [204, 206, 400, 401, 404, 429, 500])
def test_another_status_than_200_is_a_failure(
    idp: Provider, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    idp.status = code
    assert status(idp.url, token()) == 503
    assert f"it answered {code}" in caplog.text


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(
    idp: Provider, code: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"keys": [public_jwk("RS256")]}))
    with provider() as other:
        for target in (other.url, file.as_uri(), idp.url):
            idp.status, idp.headers = code, {"Location": target}
            assert status(idp.url, token()) == 503
            assert f"it answered {code} to '{target}', and redirects are not followed" in caplog.text
        assert other.fetches == 0
    assert idp.fetches == 3


def test_https_needs_a_certificate_that_this_machine_trusts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    certificate = make_ssl_devcert(str(tmp_path / "id"), host="localhost")
    with provider(certificate) as idp:
        assert status(idp.url, token()) == 503
        assert "CERTIFICATE_VERIFY_FAILED" in caplog.text
        monkeypatch.setenv("SSL_CERT_FILE", certificate[0])
        assert status(idp.url, token()) == 200


def test_an_answer_that_comes_byte_by_byte_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks_client, "TIMEOUT", 0.3)
    began = time.monotonic()
    with dripping(b"HTTP/1.1 200 OK\r\n\r\n", b" ") as slow:
        assert status(f"http://127.0.0.1:{slow.port}/", token()) == 503
    assert time.monotonic() - began < signing_keys.WAIT


# -- keys ---------------------------------------------------------------------------------------------------

KINDS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "ES256K", "EdDSA"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fields", [{}, {"alg": None}, {"use": None}, {"key_ops": ["verify"], "use": None}])
def test_keys_of_all_kinds_check_tokens(idp: Provider, kind: str, fields: dict[str, Any]) -> None:
    idp.keys = [public_jwk(kind, **fields)]
    assert status(idp.url, token(kind)) == 200
    assert status(idp.url, token(f"{kind}-other", kid=kind)) == 401


@pytest.mark.parametrize(
    "fields",
    [
        *({"use": "enc"}, {"use": 1}, {"key_ops": ["encrypt"]}, {"key_ops": "verify"}, {"key_ops": []}),
        *(
            {"alg": "RS512"},
            {"alg": "HS256"},
            {"alg": "none"},
            {"alg": "RSA-OAEP"},
            {"alg": "ES256"},
            {"alg": 1},
        ),
        *({"kty": "EC"}, {"kty": "oct"}, {"kty": ["RSA"]}, {"kty": None}, {"crv": "P-256"}, {"crv": {}}),
        *({"n": 5}, {"n": "!"}, {"n": None}, {"e": "AA"}, {"d": "AQAB"}, {"kid": 5}, {"kid": []}, {"n": "é"}),
    ],
    ids=str,
)
def test_a_key_that_must_not_check_tokens_is_left_out(idp: Provider, fields: dict[str, Any]) -> None:
    idp.keys = [public_jwk("RS256", **fields), public_jwk("ES256")]
    assert status(idp.url, token("RS256")) == 401
    assert status(idp.url, token("ES256")) == 200


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
def test_a_short_rsa_key_is_left_out(idp: Provider) -> None:
    idp.keys = [public_jwk("RS256-short"), public_jwk("ES256")]
    assert status(idp.url, token("RS256-short")) == 401
    assert status(idp.url, token("ES256")) == 200


def test_a_token_with_another_algorithm_than_its_key_is_refused(idp: Provider) -> None:
    idp.keys = [public_jwk("RS256", alg=None)]
    assert status(idp.url, token("RS256"), algorithms=["RS512"]) == 401
    assert status(idp.url, token("ES256"), algorithms=["ES256"]) == 503  # the provider has no such key
    idp.keys = [public_jwk("RS256"), public_jwk("ES256")]
    assert status(idp.url, token("RS512", kid="RS256")) == 401
    assert status(idp.url, token("ES256", kid="RS256")) == 401
    assert status(idp.url, token("RS256"), algorithms=["ES256"]) == 401


@pytest.mark.parametrize("kind", ["RS256", "ES256"])
def test_a_private_key_in_a_jwks_is_left_out(idp: Provider, kind: str) -> None:
    algorithm = get_default_algorithms()[kind]
    idp.keys = [{**algorithm.to_jwk(private_key(kind), as_dict=True), "key_ops": ["verify"], "kid": kind}]
    idp.keys += [public_jwk("EdDSA")]
    assert status(idp.url, token(kind)) == 401
    assert status(idp.url, token("EdDSA")) == 200


def forged(secret: bytes, kid: str) -> str:
    """Returns a token that is signed with HS256 and any text as its secret."""

    def part(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).decode().rstrip("=")

    claims = {"sub": "ada", "iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + 60}
    head = part(json.dumps({"alg": "HS256", "kid": kid}).encode()) + "." + part(json.dumps(claims).encode())
    return f"{head}.{part(hmac.digest(secret, head.encode(), hashlib.sha256))}"


def test_a_public_key_is_no_secret(idp: Provider) -> None:
    public = private_key("RS256").public_key()
    secrets = [
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        json.dumps(public_jwk("RS256")).encode(),
        RSAAlgorithm.to_jwk(public).encode(),
        b"",
    ]
    assert {status(idp.url, forged(secret, "RS256")) for secret in secrets} == {401}


def test_a_shared_secret_in_a_jwks_checks_nothing(idp: Provider) -> None:
    secret = b"a secret of thirty-two bytes, at least"
    shared = {"kty": "oct", "k": base64.urlsafe_b64encode(secret).decode().rstrip("="), "kid": "shared"}
    for alg in ({}, {"alg": "HS256"}, {"alg": "RS256"}):
        idp.keys = [{**shared, **alg}, public_jwk("RS256")]
        assert status(idp.url, forged(secret, "shared")) == 401


def test_a_token_without_kid_fits_any_key_of_its_algorithm(idp: Provider) -> None:
    idp.keys = [public_jwk("RS256-new"), public_jwk("RS256", kid=None), public_jwk("ES256")]
    assert status(idp.url, token("RS256", kid=None)) == 200
    assert status(idp.url, token("RS256-new", kid=None)) == 200
    assert status(idp.url, token("RS256-other", kid=None)) == 401
    assert status(idp.url, token("RS256")) == 401  # no key has its kid


def test_all_keys_with_the_same_kid_are_tried(idp: Provider) -> None:
    same = {"kid": "same"}
    idp.keys = [
        public_jwk("RS256-new", **same),
        public_jwk("ES256", **same),
        public_jwk("RS256", **same),
        public_jwk("RS256-other", use="enc", **same),
    ]
    kinds = ["RS256", "RS256-new", "ES256", "RS256-other"]
    assert [status(idp.url, token(kind, kid="same")) for kind in kinds] == [200, 200, 200, 401]


@pytest.mark.parametrize(
    "header", [{"alg": "RS256", "kid": 5}, {"kid": "RS256"}, {"alg": None}, {"alg": ["RS256"]}]
)
def test_a_token_with_an_odd_header_is_refused(idp: Provider, header: dict[str, Any]) -> None:
    _, body, signature = token().split(".")
    head = base64.urlsafe_b64encode(json.dumps(header).encode()).decode().rstrip("=")
    assert status(idp.url, f"{head}.{body}.{signature}") == 401
