"""When a token expires, the client asks the app for another; the stream goes on, at once and without loss."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from playwright.sync_api import Page

from flask_sse_push import MessageAnnouncer
from tests.apps.club import KEY
from tests.support.processes import Gunicorn, gunicorn

from .conftest import Visit, eventually_on
from .script import Refusal, Script, Started, event, opening
from .test_push_client import script, start, visitor

__all__ = ["script", "start", "visitor"]

#: Makes a client whose tokens are t1, t2, …. A delay would be so long that the test fails.
START = """async (options) => {
  const { PushClient } = await import("/client/push-client.js");
  window.notes = [];
  let asked = 0;
  const token = () => `t${++asked}`;
  const inHeaders = { headers: async () => ({ Authorization: `Bearer ${token()}` }) };
  const { kind, ...more } = options;
  const given = { function: { token }, headers: inHeaders, string: { token: "t1" } }[kind];
  window.client = new PushClient("/stream?channels=a", { minDelay: 1e6, maxDelay: 1e9, ...more, ...given });
  const note = ({ detail }) => notes.push(detail);
  for (const type of ["statechange", "error"]) client.addEventListener(type, note);
  client.on("message", ({ data }) => notes.push(data));
}"""


def refusal(status: int, code: int) -> Refusal:
    body = json.dumps({"code": code, "message": "get a new one"}).encode()
    return Refusal(status, {"Content-Type": "application/json"}, body)


EXPIRED = refusal(401, 1103)
CLOSE = event({}, "sse.error") + event({"reason": "expired", "reconnect": False, "retry": 9}, "sse.close")


def tokens(script: Script) -> list[str]:
    return [one.headers["authorization"].removeprefix("Bearer ") for one in script.requests]


def run(page: Page, script: Script, kind: str, **options: Any) -> None:
    page.goto(script.url)
    page.evaluate(START, {"kind": kind, **options})


@pytest.mark.parametrize("kind", ["function", "headers"])
@pytest.mark.parametrize(
    "answer", [EXPIRED, refusal(401, 1102), Refusal(401)], ids=["expired", "failed", "proxy"]
)
def test_a_refused_function_is_asked_again_at_once(
    script: Script, start: Started, kind: str, answer: Refusal
) -> None:
    script.then(answer, opening() + event(1, id="e-2"))
    page = start("close()")
    run(page, script, kind)
    eventually_on(page, lambda: page.evaluate("notes.includes(1)"))
    assert tokens(script) == ["t1", "t2"]
    assert page.evaluate("notes") == [{"state": "open", "mode": "stream"}, 1]


@pytest.mark.parametrize("kind", ["function", "headers"])
def test_a_stream_whose_token_expires_goes_on_after_the_cursor(
    script: Script, start: Started, kind: str
) -> None:
    script.then(
        opening() + event(1, id="e-2") + CLOSE + Script.END,
        EXPIRED,  # the app may have given the old token again
        opening(id="e-2", resumed=True) + event(2, id="e-3"),
    )
    page = start("close()")
    run(page, script, kind)
    eventually_on(page, lambda: page.evaluate("notes.includes(2)"))
    assert tokens(script) == ["t1", "t2", "t3"]
    assert script.cursors == [None, "e-2", "e-2"]
    assert page.evaluate("notes") == [
        {"state": "open", "mode": "stream"},
        1,
        {"state": "connecting", "mode": "stream"},
        {"state": "open", "mode": "stream"},
        2,
    ]


@pytest.mark.parametrize("kind", ["function", "headers"])
def test_a_second_refusal_in_a_row_closes_the_client(script: Script, start: Started, kind: str) -> None:
    script.then(EXPIRED, opening() + Script.END, EXPIRED, EXPIRED)
    page = start("close()")
    run(page, script, kind, minDelay=1)
    eventually_on(page, lambda: page.evaluate("client.state") == "closed")
    assert tokens(script) == ["t1", "t2", "t3", "t4"]
    last = page.evaluate("notes.at(-1)")
    assert (last["state"], last["status"], last["error"]["code"]) == ("closed", 401, 1103)
    assert page.evaluate("notes.filter(({ status, state }) => status === 401 && !state).length") == 1


@pytest.mark.parametrize("answers", [(EXPIRED,), (opening() + CLOSE + Script.END,)], ids=["401", "sse.close"])
def test_a_token_that_is_text_is_not_asked_again(script: Script, start: Started, answers: Any) -> None:
    script.then(*answers)
    page = start("close()")
    run(page, script, "string")
    eventually_on(page, lambda: page.evaluate("client.state") == "closed")
    assert len(script.requests) == 1


def test_tokens_that_expire_at_once_are_not_asked_for_without_a_pause(script: Script, start: Started) -> None:
    script.then(*[opening() + CLOSE + Script.END] * 2)
    page = start("close()")
    run(page, script, "function")
    eventually_on(page, lambda: page.evaluate("client.state") == "waiting")
    assert tokens(script) == ["t1", "t2"]


def test_other_refusals_are_final_as_before(script: Script, start: Started) -> None:
    script.then(refusal(403, 1201))
    page = start("close()")
    run(page, script, "function")
    eventually_on(page, lambda: page.evaluate("client.state") == "closed")
    assert tokens(script) == ["t1"]


def test_a_refused_change_of_channels_asks_again_too(script: Script, start: Started) -> None:
    script.then(opening())
    script.channel_change = EXPIRED
    page = start("close()")
    run(page, script, "function")
    eventually_on(page, lambda: page.evaluate("client.state") == "open")
    assert page.evaluate("client.join('b').catch(({ status }) => status)") == 401
    sent = [headers["authorization"] for headers in script.channel_changes]
    assert sent == ["Bearer t2", "Bearer t3"]
    assert page.evaluate("[client.state, client.channels.join()]") == ["open", "a"]


def test_all_tabs_go_on_when_the_token_of_the_shared_connection_expires(
    script: Script, start: Started
) -> None:
    first = f"channel: a\n{event(1, id='e-2')}{CLOSE}{Script.END}"
    script.then(
        opening() + first, EXPIRED, opening(id="e-2", resumed=True) + f"channel: a\n{event(2, id='e-3')}"
    )
    page = start("close()")
    run(page, script, "function", tabs=True)
    eventually_on(page, lambda: page.evaluate("notes.includes(2)"))
    assert tokens(script) == ["t1", "t2", "t3"]
    assert page.evaluate("notes.filter((one) => one === 1 || one === 2)") == [1, 2]


@pytest.fixture
def club(empty_valkey: str, log: Path, tmp_path: Path) -> Iterator[tuple[Gunicorn, MessageAnnouncer]]:
    """Runs the app whose members sign in with tokens."""
    rules = tmp_path / "rules.json"
    rules.write_text(json.dumps({"ada": ["club"]}))
    env = {"SSE_PUSH_BROKER_URL": empty_valkey, "RULES": str(rules), "SSE_PUSH_PUBLIC_CHANNELS": ""}
    with gunicorn("tests.apps.club:app", env=env, log=log) as server:
        announcer = MessageAnnouncer.from_url(empty_valkey)
        yield server, announcer
        announcer.close()


REAL = """async (given) => {
  const { PushClient } = await import("/stream/client/push-client.js");
  window.received = [];
  window.asked = 0;
  window.errors = [];
  const token = () => given[Math.min(asked++, given.length - 1)];
  window.client = new PushClient("/stream?channels=club", { token });
  client.on("message", ({ data }) => received.push(data));
  client.addEventListener("error", ({ detail }) => errors.push(detail));
}"""


def test_a_stream_of_the_real_server_outlives_its_tokens(
    club: tuple[Gunicorn, MessageAnnouncer], visit: Visit
) -> None:
    server, announcer = club

    def token(seconds: float) -> str:
        return jwt.encode({"sub": "ada", "exp": int(time.time() + seconds)}, KEY, algorithm="HS256")

    visitor = visit()
    page = visitor.page
    page.goto(server.url)
    page.evaluate(REAL, [token(-60), token(4), token(600)])
    eventually_on(page, lambda: page.evaluate("client.state") == "open")
    announcer.publish("before", channel="club")
    eventually_on(page, lambda: page.evaluate("asked") == 3)
    announcer.publish("after", channel="club")
    eventually_on(page, lambda: page.evaluate("received.length") == 2)
    assert page.evaluate("[received, errors]") == [["before", "after"], []]
    visitor.expect_network_errors()
