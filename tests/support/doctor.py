"""Runs `flask sse doctor` in the process of the test, and knows the table of set-ups that it must judge."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple
from unittest import mock

from flask import Flask

from flask_sse_push import SSEBlueprint
from flask_sse_push.cli.doctor import broker, connection, exchange, live

#: Findings about the machines of the tests, which are no part of the set-ups.
STANDING = {"persistence", "open files", "gunicorn"}
#: How long the doctor waits for what a server sends.
WAITS = (
    (connection, "EVENT_TIMEOUT"), (connection, "GRACE"), (exchange, "HEAD_TIMEOUT"), (live, "TIMEOUT"),
)  # fmt: skip


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

    def of_level(self, level: str) -> dict[str, str]:
        """The facts of the findings of one level, by name."""
        return {each.name: each.what for each in self.findings if each.level == level}


def examine(*options: str, config: Mapping[str, Any], is_withheld: bool = False) -> Checkup:
    """Runs the doctor for an app with `config`. The machine of the test may be slow.

    :param is_withheld: whether something never arrives. The doctor then waits for it for a short time only.
    """
    app = Flask("doctor")
    app.config.update({"SECRET_KEY": "test", **config})
    app.register_blueprint(SSEBlueprint("sse", __name__), url_prefix="/stream")
    seconds = 2.0 if is_withheld else 30.0
    with ExitStack() as patches:
        for module in (broker, connection):
            patches.enter_context(mock.patch.object(module, "SLOW", 60.0))
        for module, name in WAITS:
            patches.enter_context(mock.patch.object(module, name, seconds))
        result = app.test_cli_runner().invoke(args=["sse", "doctor", "--json", *options])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return Checkup(result.exit_code, [Finding(**json.loads(line)) for line in result.stdout.splitlines()])
