"""React's hook, Vue's composable and Angular's service, in the real frameworks, with the real server."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.support.bundle import JS, bundle

from .conftest import Visit, eventually_on
from .plain import Server, server

__all__ = ["server"]


@pytest.fixture(scope="module", params=["react", "vue", "angular"])
def bundled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Bundles a page's script with the framework. Returns the framework's name and the file."""
    file = tmp_path_factory.mktemp("bundle") / "page.js"
    return str(request.param), bundle(JS / "apps" / f"{request.param}.js", file)


def test_a_component_receives_events_while_it_is_mounted(
    server: Server, visit: Visit, bundled: tuple[str, Path]
) -> None:
    name, script = bundled
    visitor = visit()
    page = visitor.page
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url) if "channels=" in request.url else None)
    page.goto(server.url)
    page.add_script_tag(path=script, type="module")
    eventually_on(page, lambda: page.evaluate("typeof mount") == "function")
    shown = page.locator("#shown")
    channels = [f"{name}-one", f"{name}-two"]
    for channel in channels:
        page.evaluate("(channel) => mount(channel)", channel)
        # Wait until the stream of this channel has begun, and the stream of the previous channel is closed.
        eventually_on(page, lambda channel=channel: channel in page.evaluate("opened"))  # type: ignore[misc]
        server.wait_for_streams(page, {channel})
        expect(shown).to_have_text(re.compile(f"^{channel} open "))
        for value in range(3):
            server.announcer.publish({"n": value}, "price", channel=channel)
            expect(shown).to_have_text(re.compile(rf'"n":\s?{value}'))
    page.evaluate("unmount()")
    server.wait_for_streams(page)
    expect(shown).to_have_count(0)
    received = [[channel, data["n"]] for channel, data, _ in page.evaluate("received") if data != "complete"]
    assert received == [[channel, value] for channel in channels for value in range(3)]
    # A handler sees the component's current state, not the state from when the stream was opened.
    assert [count for channel, _, count in page.evaluate("received") if channel == channels[0]][:3] == [
        0,
        1,
        2,
    ]
    # Each mount opens one connection. Strict mode opens no second one.
    eventually_on(page, lambda: len(requests) == 2)
    if name == "angular":
        assert [channels[1], "complete", 3] in page.evaluate("received")
    visitor.expect_network_errors()
