"""PushClient reports a mistake in the page by an exception and in the console, and each refusal once."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import Visitor, eventually_on
from .script import Refusal, Script, Started, event, noted, opening
from .test_push_client import script, start, visitor

__all__ = ["script", "start", "visitor"]

#: Code that can never work, and what the console says about it.
MISTAKES = {
    "new PushClient()": 'needs the address of a stream, for example "/stream?channels=news". It got undef',
    "new PushClient('')": 'It got "".',
    "new PushClient(() => '/stream')": "It got a function.",
    "new PushClient({ channels: ['a'] })": "It got an object",
    "new PushClient('http://')": 'It got "http://".',
    "new PushClient('ws://localhost/stream')": 'It got "ws://localhost/stream". A stream comes over http',
    "new PushClient(new URL('wss://localhost/'))": "A stream comes over http or https.",
    "new PushClient('file:///stream')": "A stream comes over http or https.",
    "new PushClient('javascript:1')": "A stream comes over http or https.",
    "make({ channel: 'news' })": 'there is no option "channel". Did you mean "channels"?',
    "make({ lastEventID: 'x' })": 'Did you mean "lastEventId"?',
    "make({ max_retries: 1 })": 'Did you mean "maxRetries"?',
    "make({ credentials: true })": 'Did you mean "withCredentials"?',
    "make({ onmessage: () => {} })": 'there is no option "onmessage". The options are minDelay, ',
    "make({ types: [] })": 'there is no option "types".',
    "make({ minDelay: 'x' })": 'the option "minDelay" cannot be "x".',
    "make({ minDelay: NaN })": 'the option "minDelay" cannot be NaN.',
    "make({ minDelay: '' })": 'the option "minDelay" cannot be "".',
    "make({ minDelay: true })": 'the option "minDelay" cannot be true.',
    "make({ minDelay: [] })": 'the option "minDelay" cannot be an object',
    "make({ EventSource: {} })": 'the option "EventSource" cannot be an object',
    "make({ maxDelay: -1 })": 'the option "maxDelay" cannot be -1.',
    "make({ maxRetries: () => 1 })": 'the option "maxRetries" cannot be a function.',
    "make({ hiddenAfter: {} })": 'the option "hiddenAfter" cannot be an object',
    "make({ maxEvent: undefined, maxInflated: NaN })": 'the option "maxInflated" cannot be NaN.',
    "make({ batch: 'all' })": 'the option "batch" cannot be "all".',
    "make({ lastEventId: () => 'x' })": 'the option "lastEventId" cannot be a function.',
    "make({ body: () => ({}) })": 'the option "body" cannot be a function.',
    "make({ channels: () => [] })": 'the option "channels" cannot be a function.',
    "client.on('price')": 'on("price", handler) needs a function as its handler. It got undefined.',
    "client.once('price', 'show')": 'It got "show".',
    "client.addEventListener('price', () => {})": 'call client.on("price", handler)',
    "client.addEventListener('message', () => {})": 'addEventListener only knows "statechange" and "error".',
}

#: Returns the message of the exception; "" if there is none.
TRY = """async (code) => {
  const { PushClient } = await import("/client/push-client.js");
  const made = [];
  const make = (options) => made.push(new PushClient("/stream", options)) && made.at(-1);
  const client = make({});
  client.close();
  let message = "";
  try {
    eval(code);
  } catch (error) {
    message = error instanceof TypeError && error.message;
  }
  for (const each of made) each.close();
  return message;
}"""


@pytest.fixture
def console(visitor: Visitor) -> list[tuple[str, str]]:
    """Returns a list that gets the level and the text of each message in the console."""
    said: list[tuple[str, str]] = []
    visitor.page.on("console", lambda message: said.append((message.type, message.text)))
    return said


@pytest.mark.parametrize("code", MISTAKES)
def test_a_mistake_throws_and_is_explained(
    script: Script, visitor: Visitor, console: list[tuple[str, str]], code: str
) -> None:
    visitor.page.goto(script.url)
    assert visitor.page.evaluate(TRY, code).startswith("PushClient: wrong ")
    eventually_on(visitor.page, lambda: bool(console))
    ((level, text),) = console
    assert level == "error"
    assert text.startswith("PushClient: ")
    assert MISTAKES[code] in text
    visitor.expect_errors("PushClient: ")
    assert script.requests == []


@pytest.mark.parametrize(
    "options",
    [
        "{ token: undefined, minDelay: undefined, lastEventId: null, headers: null, channels: null }",
        "{ minDelay: 0, maxRetries: Infinity, hiddenAfter: 0, batch: 0, tabs: false, remember: false }",
        "{ minDelay: '20' }",
    ],
)
def test_what_can_work_is_accepted(script: Script, visitor: Visitor, options: str) -> None:
    visitor.page.goto(script.url)
    assert visitor.page.evaluate(TRY, f"make({options})") == ""


@pytest.mark.parametrize(
    ("channels", "sent"),
    [
        ("'news'", "a,news"),
        ("['b', 'c']", "a,b,c"),
        ("new Set(['b'])", "a,b"),
        ("'b,c'", "a,b,c"),
        ("''", "a"),
    ],
)
def test_text_is_one_channel(script: Script, start: Started, channels: str, sent: str) -> None:
    script.then(opening(), opening())
    page = start("close()")
    make = f"new PushClient('/stream?channels=a', {{ channels: {channels} }})"
    page.evaluate(
        f"import('/client/push-client.js').then(({{ PushClient }}) => {{ window.other = {make}; }})"
    )
    eventually_on(page, lambda: len(script.requests) == 1)
    assert script.requests[0].query["channels"] == [sent]
    page.evaluate("other.close()")


@pytest.mark.parametrize("option", ["token", "headers"])
@pytest.mark.parametrize("how", ["throw error", "return Promise.reject(error)"])
def test_a_function_that_fails_is_told_and_called_later_again(
    script: Script, start: Started, console: list[tuple[str, str]], option: str, how: str
) -> None:
    script.then(opening() + event(1))
    page = start("close()")
    page.evaluate(
        """async ([option, how]) => {
          const { PushClient } = await import("/client/push-client.js");
          const error = new Error("the vault is shut");
          const fail = new Function("error", how);
          let asked = 0;
          const give = { token: () => "t", headers: () => ({}) }[option];
          const given = { [option]: () => (asked++ < 3 ? fail(error) : give()) };
          window.client = new PushClient("/stream", { minDelay: 1, ...given });
          client.addEventListener("error", ({ detail }) => {
            notes.push([detail.reason, detail.error === error]);
          });
          client.on("message", ({ data }) => notes.push(data));
        }""",
        [option, how],
    )
    eventually_on(page, lambda: page.evaluate("notes.includes(1)"))
    assert page.evaluate("notes.filter(Array.isArray)") == [[option, True]] * 3
    told = [text for _, text in console if "vault" in text]
    assert len(told) == 1
    assert f'PushClient: the option "{option}" failed: Error: the vault is shut' in told[0]


def test_a_token_of_a_wrong_type_is_told(
    script: Script, start: Started, console: list[tuple[str, str]]
) -> None:
    page = start('addEventListener("error", ({ detail }) => notes.push(detail.reason))', token=42)
    eventually_on(page, lambda: page.evaluate("notes.includes('token')"))
    assert any("it is number, must be a string" in text for _, text in console)


@pytest.mark.parametrize(
    "token", ["'a\\nb'", "() => '€'", "Promise.reject('no token')"], ids=["line end", "euro", "promise"]
)
def test_a_token_that_cannot_be_sent_is_told(
    start: Started, visitor: Visitor, console: list[tuple[str, str]], token: str
) -> None:
    visitor.expect_errors("no token")  # the rejection of the promise, before the client is made
    page = start("close()")
    page.evaluate(
        f"""async () => {{
          const {{ PushClient }} = await import("/client/push-client.js");
          window.client = new PushClient("/stream", {{ token: {token} }});
          client.addEventListener("error", ({{ detail }}) => notes.push(detail.reason));
        }}"""
    )
    eventually_on(page, lambda: page.evaluate("notes.includes('token')"))
    assert any('PushClient: the option "token" failed: ' in text for _, text in console)


@pytest.mark.parametrize(
    "options", [{}, {"transport": "fetch"}, {"tabs": True}], ids=["native", "fetch", "tabs"]
)
def test_a_wrong_path_is_told_once(
    script: Script, start: Started, console: list[tuple[str, str]], options: dict[str, Any]
) -> None:
    script.then(*[404] * 9)
    page = start("close", **options)
    eventually_on(page, lambda: len(script.requests) >= 4)
    page.evaluate("client.close()")
    told = [text for level, text in console if level == "warning"]
    assert told == [
        f"PushClient: {script.url}/stream answered 404 (no content type). "
        "Is the blueprint registered under /stream?"
    ]


@pytest.mark.parametrize(
    "options", [{}, {"headers": {"X-Page": "1"}}, {"tabs": True}], ids=["native", "fetch", "tabs"]
)
def test_the_servers_text_is_told(
    script: Script, start: Started, console: list[tuple[str, str]], options: dict[str, Any]
) -> None:
    error = b'{"code": 1201, "message": "you may not listen to a"}'
    no_broker = event({"code": 1203, "message": "the broker does not answer"}, "sse.error") + script.END
    refusal = Refusal(403, {"Content-Type": "application/json"}, error)
    script.then(no_broker, no_broker, refusal, refusal)  # the first two come before any `sse.open`
    page = start("close", **options)
    eventually_on(page, lambda: page.evaluate("client.state") == "closed")
    told = [text for level, text in console if level == "warning"]
    assert told == [
        "PushClient: the server says: the broker does not answer",
        f"PushClient: {script.url}/stream answered 403 (application/json). you may not listen to a",
    ]


@pytest.mark.parametrize("options", [{}, {"transport": "fetch"}], ids=["native", "fetch"])
def test_a_redirect_to_a_login_page_is_told_with_its_address(
    script: Script, start: Started, console: list[tuple[str, str]], options: dict[str, Any]
) -> None:
    script.then(*[Refusal(302, {"Location": "/login?next=/stream"})] * 9)
    page = start('addEventListener("error", ({ detail }) => notes.push(detail))', **options)
    eventually_on(page, lambda: page.evaluate("notes.filter(({ state }) => state === 'waiting').length >= 2"))
    page.evaluate("client.close()")
    for detail in page.evaluate(
        "notes.filter(({ status, state }) => status && (!state || state === 'waiting'))"
    ):
        assert (detail["reason"], detail["status"], detail["redirected"]) == ("refused", 200, True)
        assert detail["url"] == f"{script.url}/login?next=/stream"
        assert detail["contentType"] == "text/html"
    told = [text for level, text in console if level == "warning"]
    assert told == [
        f"PushClient: {script.url}/stream was redirected to {script.url}/login, "
        "which answered 200 (text/html). An event stream has the content type text/event-stream. "
        "Is a login needed?"
    ]


def test_a_page_of_html_without_a_redirect_has_its_address_too(script: Script, start: Started) -> None:
    script.then(*[Refusal(200, {"Content-Type": "text/html; charset=utf-8"}, b"<p>")] * 3)
    page = start('addEventListener("error", ({ detail }) => notes.push(detail))', maxRetries=0)
    *_, detail, closed = noted(page, 2)
    assert (detail["url"], detail["redirected"]) == (f"{script.url}/stream?channels=a", False)
    assert detail["contentType"] == closed["contentType"] == "text/html; charset=utf-8"
    assert (closed["state"], closed["reason"]) == ("closed", "retries")
