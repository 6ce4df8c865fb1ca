"""Runs `flask sse doctor` in the process of the test, and knows the table of set-ups that it must judge."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest
from flask import Flask

from flask_sse_push import SSEBlueprint
from flask_sse_push.cli.doctor import broker, connection

#: Findings about the machines of the tests, which are no part of the set-ups.
STANDING = {"persistence", "open files", "gunicorn"}


class Finding(NamedTuple):
    """A finding as the command prints it with `--json`."""

    level: str
    name: str
    what: str
    why: str
    advice: str


class Checkup(NamedTuple):
    """The exit code of the doctor, and its findings."""

    code: int
    findings: list[Finding]

    def faults(self) -> list[Finding]:
        """The findings that are not ok, without those about the machine of the test."""
        return [each for each in self.findings if each.level != "ok" and each.name not in STANDING]


def examine(*options: str, config: Mapping[str, Any]) -> Checkup:
    """Runs the doctor for an app with `config`. The machine of the test may be slow."""
    app = Flask("doctor")
    app.config.update({"SECRET_KEY": "test", **config})
    app.register_blueprint(SSEBlueprint("sse", __name__), url_prefix="/stream")
    with pytest.MonkeyPatch.context() as patch:
        for module in (broker, connection):
            patch.setattr(module, "SLOW", 60.0)
        result = app.test_cli_runner().invoke(args=["sse", "doctor", "--json", *options])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return Checkup(result.exit_code, [Finding(**json.loads(line)) for line in result.stdout.splitlines()])
