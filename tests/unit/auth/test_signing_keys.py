"""The keys of an identity provider: when a worker fetches them, and what a token waits for."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from flask_sse_push import BearerJWT, ErrorCode
from flask_sse_push.auth import signing_keys
from flask_sse_push.auth.jwks_client import TIMEOUT
from flask_sse_push.errors import Refused
from flask_sse_push.hub import background
from tests.support.deadline import eventually
from tests.support.dripping import dripping
from tests.support.provider import AUDIENCE, ISSUER, Provider, provider, public_jwk, token


class Clock:
    """The clock of the keys. Time passes only when a test says so, and a little with each look at it."""

    def __init__(self) -> None:
        self.now = 1e6

    def monotonic(self) -> float:
        self.now += 1e-6
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(signing_keys, "time", made)
    return made


@pytest.fixture
def idp() -> Iterator[Provider]:
    with provider() as running:
        yield running


def bearer(url: str) -> BearerJWT:
    return BearerJWT.from_jwks(url, issuer=ISSUER, audience=AUDIENCE)


@pytest.fixture
def identify(idp: Provider) -> BearerJWT:
    return bearer(idp.url)


def user(identify: BearerJWT, text: str) -> str | None:
    found = identify(SimpleNamespace(headers={"Authorization": f"Bearer {text}"}))
    return None if found is None else found.user_id


def refusal(identify: BearerJWT, text: str) -> Refused:
    with pytest.raises(Refused) as caught:
        user(identify, text)
    return caught.value


def status(identify: BearerJWT, text: str) -> int:
    return refusal(identify, text).status


def fetched(idp: Provider, times: int) -> None:
    """Waits until the provider has been asked `times` times."""
    eventually(lambda: idp.fetches >= times)
    assert idp.fetches == times


def fetching_threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name == "flask-sse-push-keys"]


def is_idle(identify: BearerJWT) -> bool:
    """Whether no fetch is under way."""
    return keys_of(identify)._fetch is None


def keys_of(identify: BearerJWT) -> signing_keys.SigningKeys:
    found: signing_keys.SigningKeys = identify._keys_for.args[0]  # type: ignore[attr-defined]
    return found


# -- one fetch, and the cache -------------------------------------------------------------------------------


def test_the_keys_are_fetched_with_the_first_token_and_used_again(idp: Provider, identify: BearerJWT) -> None:
    assert idp.fetches == 0
    assert [user(identify, token()) for _ in range(20)] == ["ada"] * 20
    assert idp.fetches == 1


def test_many_threads_share_one_fetch(idp: Provider, identify: BearerJWT) -> None:
    idp.answers.clear()
    with ThreadPoolExecutor(20) as pool:
        users = [pool.submit(user, identify, token()) for _ in range(20)]
        fetched(idp, 1)
        idp.answers.set()
        assert [each.result() for each in users] == ["ada"] * 20
    assert (idp.fetches, idp.most_at_once) == (1, 1)


def test_old_keys_are_fetched_again_while_tokens_go_on(
    idp: Provider, identify: BearerJWT, clock: Clock
) -> None:
    assert user(identify, token()) == "ada"
    clock.now += signing_keys.REFRESH
    idp.answers.clear()
    assert [user(identify, token()) for _ in range(5)] == ["ada"] * 5  # none of them waits for the answer
    fetched(idp, 2)


def test_after_a_pause_a_token_waits_for_the_keys_of_today(
    idp: Provider, identify: BearerJWT, clock: Clock
) -> None:
    assert user(identify, token()) == "ada"
    idp.keys = [public_jwk("RS256-new")]  # the provider has withdrawn the old key
    clock.now += signing_keys.OLD
    assert status(identify, token()) == 401
    assert user(identify, token("RS256-new")) == "ada"
    assert idp.fetches == 2


# -- a rotation of the keys ---------------------------------------------------------------------------------


def test_a_key_that_is_published_before_it_is_used_is_known_in_time(
    idp: Provider, identify: BearerJWT, clock: Clock
) -> None:
    assert user(identify, token()) == "ada"
    idp.keys.append(public_jwk("RS256-new"))
    clock.now += signing_keys.REFRESH
    assert user(identify, token()) == "ada"
    eventually(lambda: is_idle(identify))
    assert user(identify, token("RS256-new")) == "ada"
    idp.keys.pop(0)
    assert user(identify, token()) == "ada"  # tokens that were signed before live on for a while
    assert idp.fetches == 2


def test_a_key_that_is_used_at_once_is_fetched_at_once(idp: Provider, identify: BearerJWT) -> None:
    assert user(identify, token()) == "ada"
    idp.keys = [public_jwk("RS256-new")]
    assert user(identify, token("RS256-new")) == "ada"
    assert idp.fetches == 2


def test_a_key_without_an_id_that_is_used_at_once_is_fetched_at_once(
    idp: Provider, identify: BearerJWT
) -> None:
    idp.keys = [public_jwk("RS256", kid=None)]
    assert user(identify, token(kid=None)) == "ada"
    idp.keys = [public_jwk("RS256-new", kid=None)]
    assert user(identify, token("RS256-new", kid=None)) == "ada"
    assert user(identify, token("RS256-new", kid=None)) == "ada"
    assert status(identify, token(kid=None)) in (401, 503)
    assert idp.fetches == 2


def test_many_users_with_the_new_key_share_one_fetch(idp: Provider, identify: BearerJWT) -> None:
    assert user(identify, token()) == "ada"
    idp.keys = [public_jwk("ES256")]
    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(lambda _: user(identify, token("ES256")), range(20))) == ["ada"] * 20
    assert idp.fetches == 2


# -- unknown keys -------------------------------------------------------------------------------------------


def test_unknown_keys_lead_to_one_fetch_in_thirty_seconds(
    idp: Provider, identify: BearerJWT, clock: Clock
) -> None:
    assert user(identify, token()) == "ada"
    assert status(identify, token(kid="unknown")) == 401
    for number in range(50):
        after = refusal(identify, token(kid=f"random {number}")).retry_after
        assert after is not None
        assert 29 < after < 45  # not all clients come back at the same moment
        assert user(identify, token()) == "ada"
    assert idp.fetches == 2
    clock.now += signing_keys.UNKNOWN_EVERY
    assert status(identify, token(kid="unknown")) == 401
    assert idp.fetches == 3


def test_a_new_key_after_an_attack_comes_with_the_next_fetch(
    idp: Provider, identify: BearerJWT, clock: Clock
) -> None:
    assert user(identify, token()) == "ada"
    assert status(identify, token(kid="random")) == 401
    idp.keys.append(public_jwk("RS256-new"))
    refused = refusal(identify, token("RS256-new"))  # the client comes again: its token may be good
    assert (refused.status, refused.code) == (503, ErrorCode.SERVICE_UNAVAILABLE)
    assert refused.retry_after is not None
    clock.now += refused.retry_after
    assert user(identify, token("RS256-new")) == "ada"


def test_a_fetch_because_of_an_unknown_key_counts_also_if_it_fails(
    idp: Provider, identify: BearerJWT, clock: Clock
) -> None:
    assert user(identify, token()) == "ada"
    idp.status = 500
    for _ in range(20):
        assert status(identify, token(kid="random")) == 503
        clock.now += 1.4
    assert idp.fetches == 2
    assert user(identify, token()) == "ada"


@pytest.mark.parametrize(
    "claims", [{"exp": 1}, {"aud": "other"}, {"aud": None}, {"nbf": 9e9}, {"iss": "https://evil.example"}]
)
def test_a_token_that_is_wrong_with_any_key_leads_to_no_fetch(
    idp: Provider, identify: BearerJWT, claims: dict[str, Any]
) -> None:
    refused = refusal(identify, token(kid="random", **claims))
    assert refused.status == 401
    assert (refused.code == ErrorCode.AUTH_EXPIRED) is ("exp" in claims)
    assert idp.fetches == 0


def test_a_token_with_an_algorithm_that_is_not_accepted_leads_to_no_fetch(idp: Provider) -> None:
    identify = BearerJWT.from_jwks(idp.url, issuer=ISSUER, audience=AUDIENCE, algorithms=["ES256"])
    assert status(identify, token("RS256")) == 401
    assert idp.fetches == 0


def test_a_fetch_holds_back_only_so_many_requests_with_unknown_keys(
    idp: Provider, identify: BearerJWT, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert user(identify, token()) == "ada"
    monkeypatch.setattr(signing_keys, "MAX_WAITING", 3)
    idp.answers.clear()
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(status, identify, token(kid="random")) for _ in range(3)]
        eventually(lambda: keys_of(identify)._waiting == 3)
        assert status(identify, token(kid="random")) == 503
        assert user(identify, token()) == "ada"
        idp.answers.set()
        assert {each.result() for each in waiting} <= {401, 503}
    assert keys_of(identify)._waiting == 0


# -- a provider that is away or slow ------------------------------------------------------------------------


def test_the_last_keys_go_on_for_a_day_and_an_outage_is_logged_once(
    idp: Provider, identify: BearerJWT, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert user(identify, token()) == "ada"
    idp.status = 500
    for _ in range(20):
        clock.now += signing_keys.KEEP / 21
        assert user(identify, token()) == "ada"
        eventually(lambda: is_idle(identify))
    assert [record.levelname for record in caplog.records if "keys of" in record.message] == ["WARNING"]
    assert "it answered 500. The last keys are used for at most 22.9 more hours" in caplog.text
    assert idp.url in caplog.text
    clock.now += signing_keys.KEEP / 10
    assert status(identify, token()) == 503
    clock.now += 100
    assert status(identify, token()) == 503
    idp.status = 200
    clock.now += 100
    assert user(identify, token()) == "ada"
    lines = [record.levelname for record in caplog.records if "keys of" in record.message]
    assert lines == ["WARNING", "ERROR", "INFO"]


def test_a_provider_that_is_away_at_the_first_token_is_asked_again_soon(
    idp: Provider, identify: BearerJWT, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    idp.status = 503
    refused = refusal(identify, token())
    assert refused.status == 503
    assert refused.retry_after is not None
    assert 4.9 < refused.retry_after < 7.5
    assert status(identify, token()) == 503
    assert idp.fetches == 1
    clock.now += refused.retry_after
    idp.status = 200
    assert user(identify, token()) == "ada"
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_a_provider_without_a_server_is_no_error_of_the_app(identify: BearerJWT, idp: Provider) -> None:
    idp.close()
    assert status(identify, token()) == 503


def test_a_slow_provider_holds_back_only_tokens_that_need_its_answer(
    idp: Provider, identify: BearerJWT, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    assert user(identify, token()) == "ada"
    idp.answers.clear()
    clock.now += signing_keys.REFRESH
    began = time.monotonic()
    assert user(identify, token()) == "ada"
    monkeypatch.setattr(signing_keys, "WAIT", 0)
    assert status(identify, token(kid="random")) == 503
    assert time.monotonic() - began < TIMEOUT  # the fetch is still under way


def test_a_fetch_that_hangs_ends_and_another_one_begins(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    monkeypatch.setattr(signing_keys, "WAIT", 0)
    with dripping(b"HTTP/1.1 200 OK\r\nX-Slow: ") as slow:  # the headers never end
        identify = bearer(f"http://127.0.0.1:{slow.port}/")

        def has_connected(number: int) -> bool:
            used = keys_of(identify)._client._socket
            return slow.connections == number and used is not None and used.fileno() != -1

        for number in (1, 2):
            assert status(identify, token()) == 503
            eventually(partial(has_connected, number))
            eventually(fetching_threads)
            clock.now += 2 * signing_keys.HUNG
            assert status(identify, token()) == 503  # this request ends the fetch
            eventually(lambda: not fetching_threads())
            clock.now += 100


def test_a_thread_that_cannot_start_is_a_failed_fetch(
    identify: BearerJWT, monkeypatch: pytest.MonkeyPatch, idp: Provider, clock: Clock
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(background, "start", refuse)
        assert status(identify, token()) == 503
    clock.now += 5
    assert user(identify, token()) == "ada"


# -- a fork -------------------------------------------------------------------------------------------------


def test_a_child_of_a_fork_keeps_the_keys_and_no_lock(idp: Provider, identify: BearerJWT) -> None:
    assert user(identify, token()) == "ada"
    keys = keys_of(identify)
    keys._lock.acquire()
    keys._fetch = signing_keys.Fetch()  # another thread of the parent fetches, and the child lacks it
    keys.after_fork()
    assert user(identify, token()) == "ada"
    idp.keys.append(public_jwk("RS256-new"))
    assert user(identify, token("RS256-new")) == "ada"
    assert idp.fetches == 2


def test_no_connection_stays_open(idp: Provider, identify: BearerJWT) -> None:
    assert user(identify, token()) == "ada"
    used = keys_of(identify)._client._socket
    assert isinstance(used, socket.socket)
    eventually(lambda: used.fileno() == -1)
