"""The code on the pages of the documentation, for tests that run it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from .deadline import eventually
from .processes import ROOT, accepts, free_port


class Command(NamedTuple):
    """A command on a page, and the lines of output that the page shows below the command."""

    text: str
    output: list[str]


def blocks(page: str, language: str) -> list[str]:
    """Returns the code blocks of a page in a language, in order.

    :param page: the path below the root of the project, such as `docs/publishing.md`.
    """
    text = (ROOT / page).read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def block(page: str, language: str, having: str) -> str:
    """Returns the first code block of a page that contains a text."""
    return next(text for text in blocks(page, language) if having in text)


def commands(page: str) -> list[Command]:
    """Returns the commands in all console blocks of a page, in order."""
    found: list[Command] = []
    for line in "".join(blocks(page, "console")).splitlines():
        if line.startswith("$ "):
            found.append(Command(line[2:], []))
        else:
            found[-1].output.append(line)
    return found


@contextlib.contextmanager
def served(command: str, folder: Path, log: Path, environ: Mapping[str, str] = os.environ) -> Iterator[str]:
    """Serves the app in a folder with a command of a page. Yields the address of the app.

    :param command: `gunicorn` or `flask run`, with its options.
    :param log: gets the output of the server.
    """
    port = free_port()
    address = {"GUNICORN_CMD_ARGS": f"--bind 127.0.0.1:{port}", "FLASK_RUN_PORT": str(port)}
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", *command.split()], cwd=folder, stdout=output, stderr=output,
            env={**environ, "PYTHONPATH": str(ROOT), **address},
        )  # fmt: skip
    try:
        eventually(lambda: accepts(port), 20)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.send_signal(signal.SIGINT)  # gunicorn then waits for nothing
        server.wait(60)
