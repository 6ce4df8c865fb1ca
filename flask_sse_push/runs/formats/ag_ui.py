"""The format `ag-ui`: the events of AG-UI 1.0."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .writer import Writer, compact


class RunWriter(Writer):
    """Writes one run as one AG-UI run, in the thread that has the key of the run as its id.

    AG-UI has no events for sources, files and data: they become `CUSTOM` events.
    """

    done_mark = None

    def begin(self) -> list[Any]:
        return [{"type": "RUN_STARTED", "threadId": self.run.key, "runId": self.run.id}]

    def part_begins(self, kind: str) -> list[Any]:
        if kind == "text":
            return [{"type": "TEXT_MESSAGE_START", "messageId": self.part, "role": "assistant"}]
        message = {"type": "REASONING_MESSAGE_START", "messageId": self.part, "role": "reasoning"}
        return [{"type": "REASONING_START", "messageId": self.part}, message]

    def piece(self, kind: str, text: str) -> list[Any]:
        type = "TEXT_MESSAGE_CONTENT" if kind == "text" else "REASONING_MESSAGE_CONTENT"
        return [{"type": type, "messageId": self.part, "delta": text}]

    def part_ends(self, kind: str) -> list[Any]:
        if kind == "text":
            return [{"type": "TEXT_MESSAGE_END", "messageId": self.part}]
        types = "REASONING_MESSAGE_END", "REASONING_END"
        return [{"type": type, "messageId": self.part} for type in types]

    def other(self, kind: str, item: Mapping[str, Any]) -> list[Any]:
        match kind:
            case "tool_call":
                id = item["id"]
                return [
                    {"type": "TOOL_CALL_START", "toolCallId": id, "toolCallName": item["name"]},
                    {"type": "TOOL_CALL_ARGS", "toolCallId": id, "delta": compact(item["input"])},
                    {"type": "TOOL_CALL_END", "toolCallId": id},
                ]
            case "tool_result":
                self._parts += 1
                content = item["error"] if "error" in item else _text(item["output"])
                result = {"messageId": self.part, "toolCallId": item["id"], "content": content}
                return [{"type": "TOOL_CALL_RESULT", **result, "role": "tool"}]
            case "data":
                return [{"type": "CUSTOM", "name": item["name"], "value": item["data"]}]
            case _:
                value = {name: item[name] for name in item if name != "type"}
                return [{"type": "CUSTOM", "name": kind, "value": value}]

    def finished(self) -> list[Any]:
        return [{"type": "RUN_FINISHED", "threadId": self.run.key, "runId": self.run.id}]

    def stopped(self) -> list[Any]:
        return self.finished()

    def failed(self, message: str, code: str) -> list[Any]:
        return [{"type": "RUN_ERROR", "message": message, "code": code}]


def _text(output: Any) -> str:
    return output if isinstance(output, str) else compact(output)
