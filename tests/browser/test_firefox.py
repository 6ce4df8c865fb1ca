"""The client in a real Firefox: both transports, compressed events, channel changes, resuming, shared
tabs."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest

from tests.support.processes import ROOT, need

from .plain import Server, server

__all__ = ["server"]

JS = ROOT / "tests" / "js"


@pytest.fixture(scope="module")
def found(server: Server) -> dict[str, Any]:
    """Runs all cases in one Firefox; returns their results."""
    firefox, node = need("firefox-esr"), need("node")
    if not (JS / "node_modules" / "puppeteer-core").is_dir():
        if os.environ.get("CI"):
            pytest.fail("run `npm install` in tests/js")
        pytest.skip("run `npm install` in tests/js")
    command = [node, "firefox.mjs", firefox, server.url]
    done = subprocess.run(command, cwd=JS, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert found["version"].startswith("firefox/")
    return found


@pytest.mark.parametrize("transport", ["native", "fetch"])
def test_published_events_arrive_over_each_transport(found: dict[str, Any], transport: str) -> None:
    result = found[transport]
    room = f"{transport}:room"
    assert result["received"] == [
        ["message", {"n": 1}, True],
        ["price", "é😀 " * 2000, True],
        ["sse.channels", [transport, room], True],
        ["message", "in the room", True],
        ["message", 1, True],
        ["message", 2, True],
    ]
    assert (result["stats"]["connects"], result["stats"]["errors"]) == (2, 0)


def test_all_tabs_use_one_connection_and_another_tab_takes_over(found: dict[str, Any]) -> None:
    result = found["tabs"]
    assert (result["before"], result["after"]) == (1, 1)
    received = [[data for _, data, _ in tab] for tab in result["received"]]
    assert received == [["before", "meanwhile"], ["before", "meanwhile", "one's own"]]


def test_eight_tabs_with_default_options_load_and_are_live(found: dict[str, Any]) -> None:
    assert found["eight"]["received"] == [[["message", "to all", True]]] * 8
    assert found["eight"]["streams"] == 1
