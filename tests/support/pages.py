"""The code on the pages of the documentation, for tests that run it."""

from __future__ import annotations

import re
from typing import NamedTuple

from .processes import ROOT


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
