"""Corners in which a client must neither throw, nor stay open, nor end without a word."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page

from .conftest import eventually_on
from .script import Script, Started, event, note, noted, opening
from .test_push_client import FOLLOWED, script, start, visitor

__all__ = ["script", "start", "visitor"]

#: Fills the page's sessionStorage, so that each further `setItem` throws a QuotaExceededError.
FILL = """() => {
  for (let piece = "x".repeat(2 ** 22); piece; piece = piece.slice(piece.length >> 1 || 1)) {
    try {
      for (let n = 0; ; n += 1) sessionStorage.setItem(`${piece.length}/${n}`, piece);
    } catch (error) {
      if (error.name !== "QuotaExceededError") throw error;
    }
  }
  try {
    sessionStorage.setItem("y", "y");
  } catch (error) {
    return error.name;
  }
}"""


def state_of(page: Page) -> Any:
    return page.evaluate("client.state")


# -- storage ------------------------------------------------------------------------------------------------


def test_a_client_with_full_storage_closes(script: Script, start: Started) -> None:
    script.then(opening() + event(1, id="e-2"))
    page = start(note("message"), remember=True, hiddenAfter=1)
    noted(page, 2)
    page.evaluate(FOLLOWED)
    assert page.evaluate(FILL) == "QuotaExceededError"
    page.evaluate("dispatchEvent(new Event('pagehide')); dispatchEvent(new Event('pageshow'));")
    assert page.evaluate("client.close(); client.state") == "closed"
    page.evaluate("document.dispatchEvent(new Event('freeze')); dispatchEvent(new Event('offline'));")
    assert state_of(page) == "closed"


#: The page of a sandboxed frame, in which `sessionStorage` itself throws a SecurityError.
SANDBOXED = """(html) => new Promise((done) => {
  window.addEventListener("message", ({ data }) => done(data));
  const frame = document.createElement("iframe");
  frame.sandbox = "allow-scripts";
  frame.srcdoc = html;
  document.body.append(frame);
})"""
WITHOUT_STORAGE = """<script type="module">
  const told = [];
  try { sessionStorage; } catch (error) { told.push(error.name); }
  try {
    const { PushClient } = await import("SERVER/client/push-client.js");
    const client = new PushClient("SERVER/stream", { remember: true, lastEventId: "" });
    told.push(client.state);
    client.close();
    told.push(client.state);
  } catch (error) { told.push(String(error)); }
  parent.postMessage(told, "*");
</script>"""


def test_a_client_whose_page_has_no_storage_works(script: Script, visitor: Any) -> None:
    page = visitor.page
    page.goto(script.url)
    told = page.evaluate(SANDBOXED, WITHOUT_STORAGE.replace("SERVER", script.url.rstrip("/")))
    assert told == ["SecurityError", "connecting", "closed"]


# -- requests that no browser sends -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"method": "TRACE"},
        {"method": "connect"},
        {"method": "HEAD"},
        {"method": "GET", "body": "x"},
        {"method": "GET", "body": {"a": 1}},
        {"method": "not a method"},
    ],
    ids=lambda options: " ".join(map(str, options.values())),
)
def test_a_request_that_no_browser_sends_closes_the_client_with_a_sentence(
    script: Script, start: Started, visitor: Any, options: dict[str, Any]
) -> None:
    warnings: list[str] = []
    visitor.page.on("console", lambda message: warnings.append(message.text))
    page = start(
        'addEventListener("error", ({ detail }) => notes.push([detail.reason, String(detail.error)]))',
        **options,
    )
    eventually_on(page, lambda: state_of(page) == "closed")
    (reason, error), closed = page.evaluate("notes.slice(-2)")
    assert (reason, error.startswith("TypeError: ")) == ("request", True)
    assert (closed["state"], closed["reason"]) == ("closed", "request")
    assert "this request cannot be sent, so the client closes" in " ".join(warnings)
    assert script.requests == []


# -- names of channels --------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", ["", "undefined", "null", "''", "[]", "[undefined]"])
@pytest.mark.parametrize("verb", ["join", "leave"])
def test_a_change_without_a_channel_is_refused_and_the_stream_goes_on(
    script: Script, start: Started, visitor: Any, verb: str, names: str
) -> None:
    visitor.expect_errors("PushClient: ")
    script.then(opening() + event(1, id="e-2"))
    page = start(note("message"))
    noted(page, 2)
    refused = page.evaluate(
        f"client.{verb}({names}).then(() => 'done', (error) => error.name + error.message)"
    )
    assert refused.startswith("TypeErrorPushClient: wrong channel ")
    assert page.evaluate("[client.state, client.channels.join()]") == ["open", "a"]
    assert len(script.requests) == 1


# -- events that no server of this package sends ------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"transport": "fetch"}, {"tabs": True}], ids=["native", "fetch", "tabs"]
)
@pytest.mark.parametrize(
    "data", ["null", "5", "[]", "no JSON", '{"heartbeat": "x", "retry": {}, "channels": 5}']
)
def test_an_opening_without_content_still_opens(
    script: Script, start: Started, options: dict[str, Any], data: str
) -> None:
    script.then(event(data, "sse.open", "e-1") + event(1, id="e-2"))
    page = start(note("message"), **options)
    noted(page, 2)
    assert page.evaluate("[client.state, client.lastEventId]") == ["open", "e-2"]
    assert len(script.requests) == 1


@pytest.mark.parametrize("data", ["null", "no JSON", "5", "[]", "{}", '{"retry": {}}'])
def test_a_close_without_content_is_a_lost_connection(script: Script, start: Started, data: str) -> None:
    script.then(opening() + event(1, id="e-2") + event(data, "sse.close") + Script.END)
    script.then(opening(id="e-2", resumed=True) + event(2, id="e-3"))
    page = start(note("message"))
    eventually_on(page, lambda: page.evaluate("client.lastEventId") == "e-3")
    assert [one["data"] for one in page.evaluate("notes") if "data" in one] == [1, 2]


def test_a_close_with_a_strange_delay_connects_again(script: Script, start: Started) -> None:
    script.then(
        opening() + event({"reason": "drain", "reconnect": True, "retry": "x"}, "sse.close") + Script.END
    )
    script.then(opening() + event(2, id="e-3"))
    eventually_on(page := start(note("message")), lambda: page.evaluate("client.lastEventId") == "e-3")


def test_an_event_of_the_type_for_all_is_delivered_once(script: Script, start: Started) -> None:
    script.then(opening() + event(1, "*", "e-2") + event(2, id="e-3"))
    page = start(note("*"), transport="fetch")
    found = [one["data"] for one in noted(page, 4) if one.get("type") in ("*", "message")]
    assert found == [1, 2]
