"""The JavaScript client in Node, on a real server."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.support.processes import ROOT, gunicorn, need


def test_the_client_works_in_node_without_the_globals_of_a_browser(empty_valkey: str, log: Path) -> None:
    node = need("node")
    with gunicorn("tests.apps.plain:app", env={"SSE_PUSH_BROKER_URL": empty_valkey}, log=log) as server:
        command = [node, "node.mjs", server.url]
        run = subprocess.run(command, cwd=ROOT / "tests" / "js", capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["received"][:3] == [[{"n": 1}, True], ["é" * 5000, True], ["in the room", True]]
    assert found["states"] == [["open", None], ["closed", None]]
    assert (found["looped"], found["wrongPath"]) == ("in a loop", "closed")
    assert found["relative"].startswith("PushClient: wrong URL /stream")
    broken, relative = found["logged"]
    assert broken == "Error: a handler failed"
    assert "Outside of pages, the address needs its beginning too" in relative
    assert "/nothing answered 404 (text/html). Is the blueprint registered under /nothing?" in run.stderr
