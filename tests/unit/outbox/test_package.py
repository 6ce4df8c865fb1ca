"""The extra `database`: nothing is imported before the app needs it, and an error names the extra."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.processes import ROOT

UNUSED = """
import sys
from flask import Flask
from flask_sse_push import sse
app = Flask("shop")
app.config["SSE_PUSH_BROKER_URL"] = "memory://"
sse.init_app(app)
app.test_cli_runner().invoke(args=["sse", "relay", "--help"])
with app.app_context():
    sse.publish("x")
print([name for name in sys.modules if name.startswith(("sqlalchemy", "flask_sse_push.outbox"))])
"""
MISSING = """
import sys
sys.modules["sqlalchemy"] = None
from flask import Flask
from flask_sse_push import ConfigError, sse
app = Flask("shop")
app.config["SSE_PUSH_BROKER_URL"] = "redis://127.0.0.1:1/0"
sse.init_app(app)
with app.app_context():
    try:
        sse.after_commit(None)
    except ConfigError as error:
        print(error)
print(app.test_cli_runner().invoke(args=["sse", "relay"]).output)
"""
REMEDY = "flask_sse_push.outbox needs the extra `database`: pip install 'flask-sse-push[database]'"


@pytest.mark.parametrize(
    ("program", "output"),
    [(UNUSED, "[]\n"), (MISSING, f"{REMEDY}\nError: {REMEDY}\n\n")],
    ids=["unused", "missing"],
)
def test_sqlalchemy_is_needed_only_by_those_who_use_it(program: str, output: str) -> None:
    command = [sys.executable, "-W", "error", "-c", program]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (run.stdout, run.stderr.count("Traceback")) == (output, 0)
