"""Finds the user of a request by the JSON Web Token in its `Authorization` header."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from ..errors import ConfigError, MissingExtra, shown
from .identity import ForeignToken, Identity, expired_token, invalid_token

if TYPE_CHECKING:
    from jwt.types import Options

    from .signing_keys import SigningKeys

#: A token with more characters than this is refused, because checking a long token takes long.
MAX_TOKEN = 8192

#: JSON can hold half of a character. Such a text has no bytes, so it cannot be the id of a user.
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")

#: Shortest HMAC key allowed for each algorithm, in bytes: as long as the algorithm's hash (RFC 7518, 3.2).
_HMAC_KEYS = {"HS256": 32, "HS384": 48, "HS512": 64}


@dataclass(frozen=True)
class TokenUser:
    """The user that a token names. `id` is the claim `sub`; `claims` are all claims of the token."""

    id: str
    claims: Mapping[str, Any]


class BearerJWT:
    """Finds the user of a request by its `Authorization: Bearer <JWT>`. Needs `flask-sse-push[jwt]`::

        sse.identify(BearerJWT(key, algorithms=["RS256"], audience="push"))

    The stream ends when the token expires. A request without the header has no user. If an identity provider
    publishes the keys and changes them from time to time, use `from_jwks`.

    :param key: for HMAC algorithms the shared secret; for all other algorithms the public key, as PEM text or
        as an object of `cryptography`.
    :param algorithms: the accepted algorithms. A token that was signed with another algorithm is refused.
    :param audience: the name that the claim `aud` must contain; None refuses every token with an `aud`.
    :param issuer: the value that the claim `iss` must have; None accepts any issuer. A token with another
        issuer is left to the functions that were registered with `sse.identify` after this one. If none of
        them finds a user, the request is refused.
    :param leeway: how many seconds the clocks of this server and of the issuer may differ.
    :param user: a function that returns the user for the claims, or None to refuse the token. Without this
        function, the user is a `TokenUser`.
    :raises ConfigError: if an algorithm is unknown or `none`, if some algorithms use a shared secret and
        some a public key, if the secret is too short, or if `leeway` is not a number of seconds.
    """

    def __init__(
        self,
        key: Any,
        *,
        algorithms: Iterable[str],
        audience: str | None = None,
        issuer: str | None = None,
        leeway: float = 0.0,
        user: Callable[[Mapping[str, Any]], Any] | None = None,
    ) -> None:
        try:
            import jwt
        except ImportError as error:
            raise MissingExtra("BearerJWT", "jwt") from error
        self._jwt = jwt
        self._keys_for: Callable[[str], Iterable[Any]] = lambda token: (key,)
        self._algorithms = _checked_algorithms(list(algorithms), key)
        self._audience = audience
        self._issuer = issuer
        self._leeway = _checked_leeway(leeway)
        self._user = user or _token_user

    @classmethod
    def from_jwks(
        cls,
        url: str,
        *,
        issuer: str,
        audience: str | None,
        algorithms: Iterable[str] | None = None,
        leeway: float = 0.0,
        user: Callable[[Mapping[str, Any]], Any] | None = None,
        allow_http: bool = False,
    ) -> BearerJWT:
        """Returns a BearerJWT that checks tokens with the keys that an identity provider publishes::

            keys = "https://id.example.com/.well-known/jwks.json"
            sse.identify(BearerJWT.from_jwks(keys, issuer="https://id.example.com", audience="push"))

        Each worker fetches the keys when the first token comes, and again every five minutes and for a token
        with an unknown key. docs/access.md says what happens if the provider does not answer.

        :param url: the address of the keys (a JSON Web Key Set, RFC 7517).
        :param issuer: the value that the claim `iss` must have.
        :param audience: the name that the claim `aud` must contain; None refuses every token with an `aud`.
        :param algorithms: the accepted algorithms. By default, all that use a public key: RS…, PS…, ES… and
            EdDSA.
        :param leeway: see `BearerJWT`.
        :param user: see `BearerJWT`.
        :param allow_http: whether an `http:` address may be on another machine than this one.
        :raises ConfigError: if the address, the issuer or an algorithm is not allowed.
        :raises MissingExtra: if the extra `jwt` is not installed.
        """
        try:
            from .jwks_client import ALGORITHMS, checked_url
            from .signing_keys import SigningKeys
        except ImportError as error:
            raise MissingExtra("BearerJWT.from_jwks", "jwt") from error
        names = list(ALGORITHMS if algorithms is None else algorithms)
        if not names or not set(names) <= set(ALGORITHMS):
            raise ConfigError("algorithms", names, "some of " + ", ".join(ALGORITHMS))
        if not isinstance(issuer, str) or not issuer:
            raise ConfigError("issuer", issuer, "the text in the claim `iss` of the tokens")
        keys = SigningKeys(checked_url(url, allow_http=allow_http), names)
        bearer = cls(None, algorithms=names, audience=audience, issuer=issuer, leeway=leeway, user=user)
        bearer._keys_for = partial(bearer._published_keys, keys)
        return bearer

    def __call__(self, request: Any) -> Identity | None:
        """Returns the identity in the request's token; None if the request has no token.

        :raises Refused: if the token is not valid. The status is 401; the error code is 1103 for an expired
            token, and 1102 for any other invalid token.
        """
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        claims, expires = self._claims(token.strip())
        identity = Identity(self._user(claims), expires=expires + self._leeway)
        if identity.user_id is None:
            raise invalid_token()
        return identity

    def _claims(self, token: str) -> tuple[dict[str, Any], float]:
        """Returns the claims of a token, and the Unix time at which it expires."""
        if len(token) > MAX_TOKEN:
            raise invalid_token()
        try:
            if self._issuer:
                self._check_issuer(token)
            claims = self._checked(token)
            return claims, float(claims["exp"])
        except self._jwt.ExpiredSignatureError as error:
            raise expired_token() from error
        except (self._jwt.PyJWTError, ArithmeticError, RecursionError, TypeError, ValueError) as error:
            raise invalid_token(f"{type(error).__name__}: {error}") from error

    def _check_issuer(self, token: str) -> None:
        """Checks the issuer that a token names. The signature is not checked yet, so the token may lie.

        :raises ForeignToken: if the token names another issuer, or none.
        """
        found = self._jwt.decode(token, options={"verify_signature": False}).get("iss")
        if found != self._issuer:
            raise ForeignToken(f"the claim iss is {shown(found)}, but must be {self._issuer!r}")

    def _checked(self, token: str) -> dict[str, Any]:
        """Returns the claims of a token. Its signature must fit one of the keys."""
        for key in self._keys_for(token):
            try:
                return self._decode(token, key)
            except self._jwt.InvalidSignatureError:
                continue
        raise invalid_token("no known key fits the signature")

    def _decode(self, token: str, key: Any, **options: Any) -> dict[str, Any]:
        required = ["exp"] + ["aud"] * bool(self._audience) + ["iss"] * bool(self._issuer)
        options = {"require": required, **options}
        claims: dict[str, Any] = self._jwt.decode(
            token,
            key,
            algorithms=self._algorithms,
            audience=self._audience,
            issuer=self._issuer,
            leeway=self._leeway,
            options=cast("Options", options),
        )
        return claims

    def _published_keys(self, keys: SigningKeys, token: str) -> Iterator[Any]:
        """Yields the keys of an identity provider that may have signed a token."""
        header = self._jwt.get_unverified_header(token)
        kid, algorithm = header.get("kid"), header.get("alg", "")
        find = partial(keys.find, kid, algorithm, partial(self._check_claims, token))
        found = find()
        yield from found
        if kid is None:  # only the signature shows whether the worker knows the key
            yield from find([key.key for key in found])

    def _check_claims(self, token: str) -> None:
        """Checks all but the signature, so that no wrong token makes a worker fetch keys."""
        checks = (
            "verify_exp",
            "verify_nbf",
            "verify_iat",
            "verify_aud",
            "verify_iss",
            "verify_sub",
            "verify_jti",
        )
        self._decode(token, "", verify_signature=False, **dict.fromkeys(checks, True))


def _checked_leeway(leeway: float) -> float:
    if isinstance(leeway, bool) or not isinstance(leeway, (int, float)) or not 0 <= leeway <= 1e9:
        raise ConfigError("leeway", leeway, "a number of seconds, at least 0")
    return float(leeway)


def _checked_algorithms(algorithms: list[str], key: Any) -> list[str]:
    import jwt

    known = jwt.algorithms.get_default_algorithms()
    for name in algorithms or [""]:
        if name == "none" or name not in known:
            expected = "names such as HS256 or RS256 (all but HS… need the package cryptography)"
            raise ConfigError("algorithms", algorithms, expected)
    shared = [name for name in algorithms if name in _HMAC_KEYS]
    if shared and len(shared) < len(algorithms):
        raise ConfigError("algorithms", algorithms, "all with a shared secret (HS…), or none of them")
    needed = max((_HMAC_KEYS[name] for name in shared), default=0)
    if needed and len(key.encode() if isinstance(key, str) else bytes(key)) < needed:
        raise ConfigError("key", "***", f"a secret of at least {needed} bytes (RFC 7518, 3.2)")
    return algorithms


def _token_user(claims: Mapping[str, Any]) -> TokenUser:
    subject = claims.get("sub")
    if not isinstance(subject, str) or not subject or _LONE_SURROGATE.search(subject):
        raise invalid_token()
    return TokenUser(subject, claims)
