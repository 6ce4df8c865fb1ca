"""The format `ai-sdk`: AI SDK's UI message stream, version 1, as `useChat` reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .writer import RunFacts, Writer


class RunWriter(Writer):
    """Writes one run as one assistant message. The id of the message is the id of the run."""

    headers = {"X-Vercel-AI-UI-Message-Stream": "v1"}

    def __init__(self, run: RunFacts) -> None:
        super().__init__(run)
        self._sources = 0
        self._has_results = False  # whether tool results came since the newest step of the message began

    def begin(self) -> list[Any]:
        return [{"type": "start", "messageId": self.run.id}]

    def part_begins(self, kind: str) -> list[Any]:
        return [*self._step(), {"type": f"{kind}-start", "id": self.part}]

    def piece(self, kind: str, text: str) -> list[Any]:
        return [{"type": f"{kind}-delta", "id": self.part, "delta": text}]

    def part_ends(self, kind: str) -> list[Any]:
        return [{"type": f"{kind}-end", "id": self.part}]

    def _step(self) -> list[Any]:
        """Begins a new step after tool results: the model was called again."""
        has_results, self._has_results = self._has_results, False
        return [{"type": "start-step"}] if has_results else []

    def other(self, kind: str, item: Mapping[str, Any]) -> list[Any]:
        match kind:
            case "tool_call":
                call = {"toolCallId": item["id"], "toolName": item["name"], "input": item["input"]}
                return [*self._step(), {"type": "tool-input-available", **call}]
            case "tool_result":
                self._has_results = True
                if "error" in item:
                    error = {"toolCallId": item["id"], "errorText": item["error"]}
                    return [{"type": "tool-output-error", **error}]
                return [{"type": "tool-output-available", "toolCallId": item["id"], "output": item["output"]}]
            case "source":
                self._sources += 1
                source = {"type": "source-url", "sourceId": f"source-{self._sources}", "url": item["url"]}
                return [source | _given(item, "title")]
            case "file":
                return [{"type": "file", "url": item["url"], "mediaType": item["media_type"]}]
            case _:
                return [{"type": f"data-{item['name']}", "data": item["data"]} | _given(item, "id")]

    def finished(self) -> list[Any]:
        return [{"type": "finish"}]

    def stopped(self) -> list[Any]:
        return [{"type": "abort"}]

    def failed(self, message: str, code: str) -> list[Any]:
        return [{"type": "error", "errorText": message}]


def _given(item: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Returns an optional field of an item as a dictionary; {} if the item does not have the field."""
    return {} if item.get(name) is None else {name: item[name]}
