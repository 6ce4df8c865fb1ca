"""A local server that streams answers as two vendors of models do. It needs no key and no network."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import SimpleQueue
from typing import Any, cast

Event = dict[str, Any]


class Vendor(ThreadingHTTPServer):
    """Answers each POST with the next of its scripts, one event after the other.

    An endless script repeats its last event. `bodies` has what clients sent; `left` gets the path of each
    request whose client has left before the end of its script.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.scripts: SimpleQueue[list[Event]] = SimpleQueue()
        self.endless = False
        self.bodies: list[Any] = []
        self.left: SimpleQueue[str] = SimpleQueue()
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        vendor = cast(Vendor, self.server)
        vendor.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        script = vendor.scripts.get(timeout=60)
        try:
            for event in script:
                self._send(event)
            while vendor.endless and not vendor.closing.wait(0.01):
                self._send(script[-1])
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            vendor.left.put(self.path)
            self.close_connection = True

    def _send(self, event: Event) -> None:
        frame = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(frame), frame))

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def vendor() -> Iterator[Vendor]:
    """Runs the server until the block ends."""
    server = Vendor()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


# -- OpenAI: the events of `POST /responses` ---------------------------------------------------------------


def openai(*items: Event) -> list[Event]:
    """Returns the events of a response with these output items, from `openai_reasoning` and so on."""
    response = {
        "id": "resp_1",
        "object": "response",
        "created_at": 0,
        "model": "gpt-6-luna",
        "status": "in_progress",
        "output": [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
    }
    events: list[Event] = [{"type": "response.created", "response": response}]
    for index, item in enumerate(items):
        empty = {**item, "content": []} if item["type"] == "message" else {**item}
        if item["type"] == "function_call":
            empty["arguments"] = ""
        events.append({"type": "response.output_item.added", "output_index": index, "item": empty})
        events += [{"output_index": index, "item_id": item["id"], **delta} for delta in _openai_deltas(item)]
        events.append({"type": "response.output_item.done", "output_index": index, "item": item})
    done = {**response, "status": "completed", "output": list(items)}
    events.append({"type": "response.completed", "response": done})
    return [{"sequence_number": number, **event} for number, event in enumerate(events)]


def _openai_deltas(item: Event) -> Iterable[Event]:
    if item["type"] == "reasoning":
        text = item["summary"][0]["text"]
        yield {"type": "response.reasoning_summary_text.delta", "summary_index": 0, "delta": text}
    elif item["type"] == "function_call":
        yield {"type": "response.function_call_arguments.delta", "delta": item["arguments"]}
    else:
        part = {"type": "output_text", "text": "", "annotations": []}
        yield {"type": "response.content_part.added", "content_index": 0, "part": part}
        for word in item["content"][0]["text"].split(" "):
            delta = {"delta": f"{word} ", "content_index": 0, "logprobs": []}
            yield {"type": "response.output_text.delta", **delta}


def openai_reasoning(text: str) -> Event:
    return {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": text}]}


def openai_call(id: str, name: str, arguments: Any) -> Event:
    call = {"type": "function_call", "id": f"fc_{id}", "call_id": id, "name": name}
    return {**call, "arguments": json.dumps(arguments), "status": "completed"}


def openai_text(text: str) -> Event:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": content}


# -- Anthropic: the events of `POST /v1/messages` ----------------------------------------------------------


def anthropic(*blocks: tuple[Event, list[Event]], stop: str = "end_turn") -> list[Event]:
    """Returns the events of a message with these blocks, from `anthropic_thinking` and so on."""
    message: Event = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-5-5",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }
    events: list[Event] = [{"type": "message_start", "message": message}, {"type": "ping"}]
    for index, (block, deltas) in enumerate(blocks):
        events.append({"type": "content_block_start", "index": index, "content_block": block})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    delta = {"stop_reason": stop, "stop_sequence": None}
    events.append({"type": "message_delta", "delta": delta, "usage": {"output_tokens": 9}})
    return [*events, {"type": "message_stop"}]


def anthropic_thinking(text: str) -> tuple[Event, list[Event]]:
    deltas = [{"type": "thinking_delta", "thinking": text}, {"type": "signature_delta", "signature": "s"}]
    return {"type": "thinking", "thinking": "", "signature": ""}, deltas


def anthropic_call(id: str, name: str, arguments: Any) -> tuple[Event, list[Event]]:
    text = json.dumps(arguments)
    deltas = [{"type": "input_json_delta", "partial_json": part} for part in (text[:5], text[5:])]
    return {"type": "tool_use", "id": id, "name": name, "input": {}}, deltas


def anthropic_text(text: str) -> tuple[Event, list[Event]]:
    deltas: list[Event] = [{"type": "text_delta", "text": f"{word} "} for word in text.split(" ")]
    return {"type": "text", "text": ""}, deltas
