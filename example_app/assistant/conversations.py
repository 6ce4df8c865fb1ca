"""The stored messages of the page with useChat: a file for each user, with a message of AI SDK in each line.

An app of yours would use its database.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from flask import abort

from ..logs import logfile
from ..page import text_in

#: At most how many messages of a user are kept.
KEPT = 100

Message = dict[str, Any]


@cache
def _folder() -> Path:
    """Returns the folder of the files. All workers of the demo share it."""
    log = logfile.path()
    folder = log.parent / "chats" if log else Path(tempfile.mkdtemp(prefix="sse-push-chats-"))
    folder.mkdir(exist_ok=True)
    return folder


def read(user: str) -> list[Message]:
    """Returns the messages of a user, oldest first."""
    file = _folder() / f"{user}.jsonl"
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    return [json.loads(line) for line in lines]


def add(user: str, message: Message) -> None:
    """Stores a message of a user. Forgets the oldest message if there are too many."""
    lines = [json.dumps(each) for each in [*read(user), message][-KEPT:]]
    new = _folder() / f"{user}.new"
    new.write_text("\n".join(lines) + "\n", "utf-8")
    new.replace(_folder() / f"{user}.jsonl")


def question_in(messages: Any, most: int) -> Message:
    """Returns the newest message that the page sent, with its text alone. Answers 400 if it has no text."""
    try:
        part, id = messages[-1]["parts"][0], messages[-1]["id"]
    except (TypeError, LookupError):
        abort(400, "send the messages of useChat")
    text = text_in(part if isinstance(part, dict) else {}, "text", most, "ask something")
    return {"id": str(id)[:100], "role": "user", "parts": [{"type": "text", "text": text}]}


def kept(user: str, question: Message, answer_id: str, items: Iterator[Any]) -> Iterator[Any]:
    """Yields the items of an answer. Stores the question first, and the answer when it ends."""
    add(user, question)
    text = ""
    try:
        for item in items:
            text += item if isinstance(item, str) else ""
            yield item
    finally:
        add(user, {"id": answer_id, "role": "assistant", "parts": [{"type": "text", "text": text}]})
