"""The pytest plugin, in a pytest process of its own: it imports nothing before a test uses a fixture."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
from pathlib import Path

from tests.support.processes import ROOT

CONFTEST = """
import sys

early = sorted({"flask_sse_push", "flask", "werkzeug", "redis", "gevent", "ssl"} & set(sys.modules))
assert not early, f"imported before conftest.py: {early}"

from gevent import monkey

monkey.patch_all()
"""

TESTS = """
import sys

def test_without_a_fixture_nothing_is_imported():
    assert not {"flask_sse_push", "flask", "redis"} & set(sys.modules)

def test_the_fixtures_work_after_the_patching(sse_app, sse_client, sse_clock):
    from flask_sse_push import sse

    with sse_client.open() as stream:
        with sse_app.app_context():
            sse.publish("hello")
        assert stream.next().data == "hello"
        sse_clock.advance(60)
"""


def test_a_conftest_may_patch_with_gevent_first(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_app.py").write_text(TESTS)
    # Plugins of other packages are off, because some of them import ssl.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-W", "error", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "-p", entry_point()],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def entry_point() -> str:
    """Returns the module that pytest loads where the package is installed."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    return setup["options.entry_points"]["pytest11"].partition("=")[2].strip()
