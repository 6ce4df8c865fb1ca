"""Stands in for a language model: yields one fixed answer, a token at a time, as a model does."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

#: Seconds between two tokens.
PACE = 0.04

ANSWER = """\
You asked: “{question}” I am only a small generator in this example, so I have one answer for \
everything. It explains how it reaches you.

Each of these words comes from a Python generator. The generator does not run inside your request. \
It runs in the background, in one of the server's workers. The words are put together ten times a \
second, stored in a list in Redis, and sent to every page that listens to your channel.

So reload this page while I am speaking: you will find what I have said so far, and the rest will \
follow. Open a second window, and the conversation appears in both. Press Stop, and I stop, \
whichever worker I run in. And if that worker is killed, your page gets an event that says so, \
instead of waiting for ever.
"""


def conversation(question: str) -> Iterator[Any]:
    """Yields the events of a run: first the question, as a separate event, then the tokens of the answer."""
    yield "question", {"text": question}
    yield from answer(question)


def thoughtful(question: str) -> Iterator[Any]:
    """Yields an answer with thoughts and a source, in the neutral form of docs/ai.md."""
    yield {"type": "reasoning", "text": "I have one answer, so I need not think for long."}
    yield from answer(question)
    yield {"type": "source", "url": "https://html.spec.whatwg.org/multipage/server-sent-events.html"}


def answer(question: str) -> Iterator[str]:
    """Yields the tokens of the answer."""
    for token in tokens(ANSWER.format(question=question)):
        yield token
        time.sleep(PACE)


def tokens(text: str) -> list[str]:
    """Splits a text into words, each with the white space before it, as language models do."""
    return re.findall(r"\s*\S+|\s+$", text.strip())
