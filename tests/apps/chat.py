"""A chat whose answers are read by AI SDK's useChat, by AG-UI's HttpAgent and by the openai packages.

The newest question says what the answer is: `tools`, `fail`, or `30 words` (see `words`). `30 words and wait`
goes on without more words until it is stopped. The app stores its messages in Redis.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis
from flask import Flask, Response, jsonify, request

from flask_sse_push import sse
from flask_sse_push.runs.run import Run
from tests.apps.words import words

app = Flask(__name__)
app.register_blueprint(sse, url_prefix="/stream")
store: Any = redis.Redis.from_url(os.environ["SSE_PUSH_BROKER_URL"], decode_responses=True)

#: Seconds between two words, and between two of more than 500 words.
PACE, QUICK = 0.01, 0.001
PAGE = """<!doctype html><meta charset="utf-8"><title>Chat</title><link rel="icon" href="data:,">
<div id="root"></div><script type="application/json" id="chat">{}</script>
<script type="module" src="/chat.js"></script>"""


def answer(question: str) -> Iterator[Any]:
    """Yields an answer, as a generator over a model would."""
    if question == "tools":
        yield {"type": "reasoning", "text": "I must "}
        yield {"type": "reasoning", "text": "ask."}
        yield {"type": "tool_call", "id": "call_1", "name": "weather", "input": {"city": "Ulm"}}
        yield {"type": "tool_result", "id": "call_1", "output": {"celsius": 17}}
        yield {"type": "tool_call", "id": "call_2", "name": "traffic", "input": {}}
        yield {"type": "tool_result", "id": "call_2", "error": "no such city"}
        yield {"type": "source", "url": "https://example.com/ulm", "title": "Ulm"}
        yield {"type": "data", "name": "mood", "data": {"good": True}}
        yield from ("It ", "is ", "warm.")
        return
    count = 10 if question == "fail" else int(question.partition(" ")[0])
    pace = PACE if count <= 500 else QUICK
    for word in words(count):
        yield word
        time.sleep(pace)
    while question.endswith("wait"):
        yield ""
        time.sleep(0.05)
    if question == "fail":
        raise RuntimeError("a secret")


def kept(chat: str, id: str, items: Iterator[Any]) -> Iterator[Any]:
    """Yields the items of an answer. Stores the text of the answer when it ends."""
    store.hset(f"about:{chat}", mapping={"pid": os.getpid(), "goes_on": 1})
    text = ""
    try:
        for item in items:
            text += item if isinstance(item, str) else ""
            yield item
    finally:
        keep(chat, {"id": id, "role": "assistant", "parts": [{"type": "text", "text": text}]})
        store.hset(f"about:{chat}", "goes_on", "")


def keep(chat: str, message: Any) -> None:
    store.rpush(f"chat:{chat}", json.dumps(message))


def messages_of(chat: str) -> list[Any]:
    return [json.loads(message) for message in store.lrange(f"chat:{chat}", 0, -1)]


def start(chat: str, question: str) -> Run:
    id = uuid.uuid4().hex
    return sse.start(kept(chat, id, answer(question)), key=chat, id=id)


@app.after_request
def name_worker(response: Response) -> Response:
    response.headers["X-Worker"] = str(os.getpid())
    return response


# -- AI SDK -----------------------------------------------------------------------------------------------


@app.get("/chat.js")
def script() -> Response:
    response = Response(Path(os.environ["CHAT_SCRIPT"]).read_bytes(), mimetype="text/javascript")
    response.headers["Cache-Control"] = "max-age=3600"  # as for any static file
    return response


@app.get("/page/<chat>")
def page(chat: str) -> str:
    data = {"id": chat, "api": "/api/chat", "messages": messages_of(chat)}
    return PAGE.format(json.dumps(data).replace("<", "\\u003c"))


@app.get("/api/chat/<chat>")
def messages(chat: str) -> Response:
    return jsonify(messages_of(chat))


@app.post("/api/chat")
def ask() -> Any:
    message = request.json["messages"][-1]
    keep(request.json["id"], message)
    return start(request.json["id"], message["parts"][0]["text"]).response("ai-sdk")


@app.get("/api/chat/<chat>/stream")
def resume(chat: str) -> Response:
    return sse.resume(chat, "ai-sdk")


@app.post("/api/chat/<chat>/stop")
def stop(chat: str) -> tuple[str, int]:
    sse.stop(chat)
    return "", 204


@app.get("/about/<chat>")
def about(chat: str) -> Response:
    """Tells whether the newest answer goes on, and in which worker."""
    return jsonify(store.hgetall(f"about:{chat}"))


# -- AG-UI ------------------------------------------------------------------------------------------------


@app.post("/ag-ui")
def ask_ag_ui() -> Any:
    thread, question = request.json["threadId"], request.json["messages"][-1]["content"]
    return start(thread, question).response("ag-ui")


@app.get("/ag-ui/<thread>")
def resume_ag_ui(thread: str) -> Response:
    return sse.resume(thread, "ag-ui")


# -- OpenAI -----------------------------------------------------------------------------------------------


@app.post("/v1/chat/completions")
def ask_openai() -> Any:
    return start(request.json["user"], request.json["messages"][-1]["content"]).response("openai")


@app.get("/v1/chat/completions/<chat>")
def resume_openai(chat: str) -> Response:
    return sse.resume(chat, "openai")
