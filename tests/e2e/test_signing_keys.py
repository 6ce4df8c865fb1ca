"""Workers that fetch the keys of an identity provider: all threads share a fetch, and no stream waits."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import httpx
import pytest

from flask_sse_push import MessageAnnouncer
from tests.support.deadline import eventually
from tests.support.processes import Gunicorn, gunicorn
from tests.support.provider import Provider, provider, public_jwk, token
from tests.support.stream import Stream


@pytest.fixture(scope="module")
def idp() -> Iterator[Provider]:
    with provider() as running:
        yield running


@pytest.fixture(scope="module")
def server(idp: Provider, valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gunicorn]:
    env = {"KEYS_URL": idp.url, "SSE_PUSH_BROKER_URL": valkey_url}
    log = tmp_path_factory.mktemp("keys") / "server.log"
    with gunicorn("tests.apps.token_users:app", env=env, log=log) as running:
        yield running


def headers(kind: str = "RS256") -> dict[str, str]:
    return {"Authorization": f"Bearer {token(kind)}"}


def test_all_threads_share_a_fetch_no_stream_waits_and_a_child_has_a_fetch_of_its_own(
    server: Gunicorn, http: httpx.Client, idp: Provider, valkey_url: str
) -> None:
    """One test for all steps, because a worker knows the keys after the first fetch."""

    def ask(way: str, kind: str = "RS256") -> str:
        return http.get(f"{server.url}/user/{way}", headers=headers(kind)).text

    assert idp.fetches == 0  # neither the import of the app nor the start of the worker fetches
    announcer = MessageAnnouncer.from_url(valkey_url)
    with ThreadPoolExecutor(13) as pool, Stream(f"{server.url}/stream") as stream:
        stream.next_of("sse.open")
        idp.answers.clear()
        asked: list[Future[str]] = [pool.submit(ask, way) for way in ["greenlet", "threadpool"] * 6]
        eventually(lambda: idp.fetches == 1)
        announcer.publish("meanwhile")
        assert stream.next_of("message").data == "meanwhile"
        assert not any(each.done() for each in asked)
        asked.append(pool.submit(ask, "child"))
        eventually(lambda: idp.fetches == 2)
        idp.answers.set()
        assert [each.result() for each in asked] == ["ada"] * 13, server.log.read_text()
    announcer.close()
    assert idp.fetches == 2

    idp.keys.append(public_jwk("ES256"))  # the provider uses a new key at once; nobody is refused
    with ThreadPoolExecutor(10) as pool:
        ways = ["threadpool", "greenlet"] * 20
        found = pool.map(ask, ways, ["RS256", "ES256", "ES256", "RS256"] * 10)
        assert list(found) == ["ada"] * 40
    assert idp.fetches == 3
    with Stream(f"{server.url}/stream?channels=user:ada", headers=headers("ES256")) as stream:
        assert stream.next_of("sse.open").json()["channels"] == ["user:ada"]
    assert idp.fetches == 3


def test_the_log_has_no_error(server: Gunicorn) -> None:
    assert "ERROR" not in server.log.read_text()
