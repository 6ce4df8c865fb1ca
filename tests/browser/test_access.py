"""Access in a real browser: a logout reaches other tabs and native clients, and origins must be allowed."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.support.processes import Gunicorn, gunicorn

from .conftest import Site, Visit, eventually_on, open_example, open_page

PAGE = b'<!doctype html><link rel="icon" href="data:,"><title>shop</title>'

#: Opens a native EventSource. Notes the types of its events, and its state after each error.
LISTEN = """([url, options]) => {
  window.received = [];
  window.errors = [];
  const source = new EventSource(url, options);
  for (const type of ["sse.open", "sse.close", "message"])
    source.addEventListener(type, () => received.push(type));
  source.onerror = () => errors.push(source.readyState);
}"""

#: Requests the stream by fetch, with headers that may need a preflight. Returns the first bytes, or the
#: error.
FETCH = """async ([url, headers]) => {
  try {
    const answer = await fetch(url, { headers });
    const { value } = await answer.body.getReader().read();
    return [answer.status, new TextDecoder().decode(value)];
  } catch (error) {
    return [0, error.name];
  }
}"""


def test_signing_out_in_one_tab_ends_the_stream_of_another_at_once(calm_site: Site, visit: Visit) -> None:
    visitor = visit()
    one = open_example(visitor, calm_site, "/live/", "ada")
    two = open_page(visitor.another_tab(), calm_site, "/live/")
    expect(two.get_by_role("button", name="Sign out")).to_be_visible()
    one.get_by_role("button", name="Sign out").click()
    # Without the `disconnect` command this would take a minute (SSE_PUSH_RECHECK), longer than a test waits.
    expect(two.get_by_role("button", name="Sign out")).to_have_count(0)
    expect(two.locator("#state")).to_have_text("Live")
    calm_site.announcer.publish({"from": "Grace", "text": "for members"}, "chat", channel="chat")
    calm_site.announcer.publish({"from": "Grace", "text": "for all"}, "news", channel="news")
    expect(two.locator("#feed .text").filter(has_text="for all")).to_be_visible()
    expect(two.locator("#feed .text").filter(has_text="for members")).to_have_count(0)
    visitor.expect_network_errors()  # a tab may ask for its stream again before it loads another page


def test_after_a_logout_a_native_client_reconnects_once_and_is_refused_for_good(
    calm_site: Site, visit: Visit
) -> None:
    visitor = visit()
    page = visitor.sign_in(calm_site.url, "ada")
    page.goto(f"{calm_site.url}/whoami")  # a page without our client
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.evaluate(LISTEN, ["/stream?channels=news,user:ada", {}])
    eventually_on(page, lambda: page.evaluate("received.length") == 1)
    assert page.request.post(f"{calm_site.url}/signout").ok
    eventually_on(page, lambda: page.evaluate("errors.length") == 2)
    assert page.evaluate("received") == ["sse.open", "sse.close"]
    assert page.evaluate("errors") == [0, 2]  # first it reconnects, then it closes for good
    eventually_on(page, lambda: len([url for url in requests if "/stream?" in url]) == 2)
    visitor.expect_network_errors()


# -- origins ------------------------------------------------------------------------------------------------


class Shop(BaseHTTPRequestHandler):
    """Serves one empty page."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(PAGE)))
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def shop() -> Iterator[int]:
    """Runs the server of another site; yields its port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Shop)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def two_origins(empty_valkey: str, log: Path, tmp_path: Path) -> Iterator[tuple[Gunicorn, int]]:
    """Runs the app with members, and a shop. The app allows the origin `http://localhost:<port of the
    shop>`."""
    rules = tmp_path / "rules.json"
    rules.write_text(json.dumps({"ada": ["club"]}))
    with shop() as port:
        env = {
            "SSE_PUSH_BROKER_URL": empty_valkey,
            "SSE_PUSH_CORS_ORIGINS": f"http://localhost:{port}",
            "RULES": str(rules),
        }
        with gunicorn("tests.apps.club:app", env=env, log=log) as server:
            yield server, port


CLOSE = {"Connection": "close"}


def ticket_of(server: Gunicorn) -> str:
    with httpx.Client(base_url=server.url, trust_env=False, timeout=60, headers=CLOSE) as http:
        http.post("/login/ada")
        return http.post("/ticket").text


def outcome(page: Page) -> tuple[list[str], list[int]]:
    eventually_on(page, lambda: page.evaluate("received.length + errors.length") > 0)
    return page.evaluate("received"), page.evaluate("errors")


def test_a_page_of_a_listed_origin_reads_the_stream(two_origins: tuple[Gunicorn, int], visit: Visit) -> None:
    server, port = two_origins
    visitor = visit()
    page = visitor.page
    page.goto(f"http://localhost:{port}/")
    url = f"{server.url}/stream?ticket={ticket_of(server)}"
    page.evaluate(LISTEN, [url, {"withCredentials": True}])
    assert outcome(page) == (["sse.open"], [])
    status, text = page.evaluate(FETCH, [f"{server.url}/stream", {"Last-Event-ID": "a<b", "X": "1"}])
    assert (status, text) == (0, "TypeError")  # the preflight does not allow the header X
    status, text = page.evaluate(FETCH, [f"{server.url}/stream", {"Last-Event-ID": "a-1"}])
    assert status == 200
    assert text.startswith("retry: ")
    status, text = page.evaluate(
        FETCH, [f"{server.url}/stream?channels=club", {"Authorization": "Bearer forged"}]
    )
    assert (status, json.loads(text)["code"]) == (401, 1102)  # the page can read a refusal too
    module = f"{server.url}/stream/client/push-client.js"
    assert page.evaluate("async (url) => typeof (await import(url)).PushClient", module) == "function"
    visitor.expect_network_errors()
    visitor.expect_errors("blocked by CORS policy")


def test_a_page_of_any_other_origin_reads_nothing(two_origins: tuple[Gunicorn, int], visit: Visit) -> None:
    server, port = two_origins
    visitor = visit()
    page = visitor.page
    page.goto(f"http://127.0.0.1:{port}/")  # the same page, from another origin
    page.evaluate(LISTEN, [f"{server.url}/stream?ticket={ticket_of(server)}", {"withCredentials": True}])
    assert outcome(page) == ([], [2])  # closed for good
    assert page.evaluate(FETCH, [f"{server.url}/stream", {}]) == [0, "TypeError"]
    assert page.evaluate(FETCH, [f"{server.url}/stream", {"Authorization": "x"}]) == [0, "TypeError"]
    visitor.expect_network_errors()
    visitor.expect_errors("blocked by CORS policy")
