"""Stands for a language model: it has one answer, and gives it as models do, a token at a time."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

#: Seconds a token takes.
PACE = 0.04

ANSWER = """\
You asked: “{question}” I am only a small generator in this example, so I have one answer for \
everything. It is about how it gets to you.

Each of these words was yielded by a Python generator. It does not run in the request that asked, \
but beside it, in one of the server's workers. The words are put together ten times a second, stored \
in a list in Redis, and sent to every page that listens to your channel.

So load this page again while I am speaking: you will find what I have said so far, and the rest as \
it comes. Open a second window, and we talk in both. Press Stop, and I fall silent, whichever worker \
I am in. And if that worker is killed, you are told that I will not go on, instead of waiting for \
ever.
"""


def conversation(question: str) -> Iterator[Any]:
    """What a run yields: the question as an event of its own, then the answer's tokens."""
    yield "question", {"text": question}
    for token in tokens(ANSWER.format(question=question)):
        yield token
        time.sleep(PACE)


def tokens(text: str) -> list[str]:
    """Words with the space before them, as models cut them."""
    return re.findall(r"\s*\S+|\s+$", text.strip())
