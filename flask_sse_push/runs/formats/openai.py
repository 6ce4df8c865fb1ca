"""The format `openai`: chat completion chunks, as OpenAI's client libraries read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .writer import RunFacts, Writer, compact

#: The value of `model`. A run does not say which model it uses.
MODEL = "run"


class RunWriter(Writer):
    """Writes one run as one choice. The format has text and tool calls; all other items are left out."""

    def __init__(self, run: RunFacts) -> None:
        super().__init__(run)
        self._indexes: dict[str, int] = {}  # the index of each tool call, by its id
        self._unanswered: set[str] = set()  # ids of the tool calls without a result

    def begin(self) -> list[Any]:
        return [self._chunk({"role": "assistant", "content": ""})]

    def _chunk(self, delta: Mapping[str, Any], reason: str | None = None) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{self.run.id}",
            "object": "chat.completion.chunk",
            "created": self.run.began,
            "model": MODEL,
            "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
        }

    def piece(self, kind: str, text: str) -> list[Any]:
        return [self._chunk({"content": text})] if kind == "text" else []

    def other(self, kind: str, item: Mapping[str, Any]) -> list[Any]:
        if kind == "tool_result":
            self._unanswered.discard(item["id"])
        if kind != "tool_call" or item["id"] in self._indexes:
            return []
        index = self._indexes[item["id"]] = len(self._indexes)
        self._unanswered.add(item["id"])
        function = {"name": item["name"], "arguments": compact(item["input"])}
        call = {"index": index, "id": item["id"], "type": "function", "function": function}
        return [self._chunk({"tool_calls": [call]})]

    def finished(self) -> list[Any]:
        return [self._chunk({}, "tool_calls" if self._unanswered else "stop")]

    def stopped(self) -> list[Any]:
        return [self._chunk({}, "stop")]

    def failed(self, message: str, code: str) -> list[Any]:
        return [{"error": {"message": message, "type": "server_error", "param": None, "code": code}}]
