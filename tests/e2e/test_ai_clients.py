"""The unmodified clients of AG-UI and OpenAI read runs on two workers, whole and resumed."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import Stream
from openai.types.chat import ChatCompletionChunk

from tests.apps.words import words
from tests.support.processes import ROOT, Gunicorn, gunicorn, need

JS = ROOT / "tests" / "js"
WHOLE = "".join(words(60))
#: How many words a long answer has. `make reloads` sets 10,000.
LONG = int(os.environ.get("LONG_ANSWER", "1000"))


@pytest.fixture(scope="module")
def server(valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gunicorn]:
    env = {"SSE_PUSH_BROKER_URL": valkey_url, "SSE_PUSH_PREFIX": "ai-clients"}
    log: Path = tmp_path_factory.mktemp("ai") / "server.log"
    with gunicorn("tests.apps.chat:app", "--keep-alive", "0", env=env, workers=2, log=log) as running:
        yield running


@pytest.fixture(scope="module")
def in_node(server: Gunicorn) -> dict[str, Any]:
    """What AG-UI's client and the openai package for Node have read, by client and question."""
    run = subprocess.run(
        [need("node"), "ai-clients.mjs", server.url], cwd=JS, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    found: dict[str, Any] = json.loads(run.stdout.strip().rpartition("\n")[2])  # text has other line ends
    return found


# -- AG-UI ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reader", ["whole", "resumed"])
def test_ag_ui_reads_a_run_whole_and_resumed(in_node: dict[str, Any], reader: str) -> None:
    found = in_node["agUi"]["60 words"][reader]
    assert [message["content"] for message in found["messages"] if message["role"] == "assistant"] == [WHOLE]
    assert (found["types"][0], found["types"][-1]) == ("RUN_STARTED", "RUN_FINISHED")
    assert found["outcome"] == "success"
    assert "error" not in found


def test_ag_ui_gets_reasoning_tools_and_data(in_node: dict[str, Any]) -> None:
    found = in_node["agUi"]["tools"]["whole"]
    roles = {message["role"]: message for message in found["messages"]}
    assert roles["reasoning"]["content"] == "I must ask."
    calls = [call for message in found["messages"] for call in message.get("toolCalls", [])]
    assert [call["function"]["name"] for call in calls] == ["weather", "traffic"]
    assert json.loads(calls[0]["function"]["arguments"]) == {"city": "Ulm"}
    results = [message for message in found["messages"] if message["role"] == "tool"]
    assert json.loads(results[0]["content"]) == {"celsius": 17}
    assert "no such city" in json.dumps(results[1])
    assert found["messages"][-1]["content"] == "It is warm."
    assert ["mood", {"good": True}] in found["custom"]


def test_ag_ui_learns_of_a_failure(in_node: dict[str, Any]) -> None:
    found = in_node["agUi"]["fail"]["whole"]
    assert "RuntimeError" in found["error"]
    assert "secret" not in json.dumps(found)


# -- openai for Node --------------------------------------------------------------------------------------


@pytest.mark.parametrize("reader", ["whole", "resumed"])
def test_openai_for_node_reads_a_run_whole_and_resumed(in_node: dict[str, Any], reader: str) -> None:
    found = in_node["openai"]["60 words"][reader]
    assert found == {"text": WHOLE, "ends": ["stop"], "calls": []}


def test_openai_for_node_gets_tool_calls(in_node: dict[str, Any]) -> None:
    found = in_node["openai"]["tools"]["whole"]
    assert [call["function"]["name"] for call in found["calls"]] == ["weather", "traffic"]
    assert (found["text"], found["ends"]) == ("It is warm.", ["stop"])


def test_openai_for_node_learns_of_a_failure(in_node: dict[str, Any]) -> None:
    found = in_node["openai"]["fail"]["whole"]
    assert found["text"] == "".join(words(10))
    assert "RuntimeError" in found["error"]


# -- openai for Python ------------------------------------------------------------------------------------


@pytest.fixture
def client(server: Gunicorn) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def ask(client: openai.OpenAI, chat: str, question: str) -> Stream[ChatCompletionChunk]:
    return client.chat.completions.create(
        model="any", user=chat, stream=True, messages=[{"role": "user", "content": question}]
    )


def resume(client: openai.OpenAI, chat: str) -> Stream[ChatCompletionChunk]:
    return client.get(
        f"/chat/completions/{chat}",
        cast_to=ChatCompletionChunk,
        stream=True,
        stream_cls=Stream[ChatCompletionChunk],
    )


def text_of(stream: Stream[ChatCompletionChunk]) -> str:
    return "".join(choice.delta.content or "" for chunk in stream for choice in chunk.choices)


def test_openai_for_python_reads_a_run_whole_and_resumed(client: openai.OpenAI) -> None:
    with ask(client, "python-words", "60 words") as whole:
        first = next(chunk.choices[0].delta.content for chunk in whole if chunk.choices[0].delta.content)
        with resume(client, "python-words") as resumed:
            assert text_of(resumed) == WHOLE
        assert first + text_of(whole) == WHOLE


def test_openai_for_python_gets_tool_calls_and_learns_of_a_failure(client: openai.OpenAI) -> None:
    with ask(client, "python-tools", "tools") as stream:
        deltas = [choice.delta for chunk in stream for choice in chunk.choices]
    calls = [call for delta in deltas for call in delta.tool_calls or []]
    assert [call.function.name for call in calls if call.function] == ["weather", "traffic"]
    assert "".join(delta.content or "" for delta in deltas) == "It is warm."
    with ask(client, "python-fail", "fail") as stream, pytest.raises(openai.APIError, match="RuntimeError"):
        text_of(stream)


# -- long answers -----------------------------------------------------------------------------------------


def test_a_long_answer_is_resumed_with_few_events(server: Gunicorn) -> None:
    chat, whole = f"long-{LONG}", "".join(words(LONG))
    question = {"id": chat, "messages": [{"parts": [{"text": f"{LONG} words and wait"}]}]}
    with httpx.stream("POST", f"{server.url}/api/chat", json=question, timeout=60, trust_env=False) as first:
        read_text(first, whole)
        address = f"{server.url}/api/chat/{chat}/stream"
        with httpx.stream("GET", address, timeout=60, trust_env=False) as resumed:
            began = time.monotonic()
            events = read_text(resumed, whole)
            milliseconds = 1000 * (time.monotonic() - began)
        httpx.post(f"{server.url}/api/chat/{chat}/stop", timeout=60, trust_env=False)
    print(f"\n{LONG} words resumed with {events} events in {milliseconds:.0f} ms")
    assert events <= 5


def read_text(response: httpx.Response, wanted: str) -> int:
    """Reads a stream of AI SDK until it has had all of a text. Returns how many events the stream has had."""
    text, events, rest = "", 0, ""
    for piece in response.iter_text():
        *lines, rest = (rest + piece).split("\n")
        for line in lines:
            if line.startswith("data: "):
                events += 1
                text += json.loads(line[6:]).get("delta", "")
        assert wanted.startswith(text)
        if text == wanted:
            return events
    raise AssertionError(f"the stream has ended after {text!r}")


# -- endings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/chat", {"id": "CHAT", "messages": [{"parts": [{"text": "QUESTION"}]}]}),
        ("/ag-ui", {"threadId": "CHAT", "runId": "r", "messages": [{"content": "QUESTION"}]}),
        ("/v1/chat/completions", {"user": "CHAT", "messages": [{"content": "QUESTION"}]}),
    ],
)
def test_stop_ends_each_format_and_nothing_is_left_to_resume(
    server: Gunicorn, path: str, body: dict[str, Any]
) -> None:
    chat = f"stop{path.replace('/', '-')}"
    filled = json.loads(json.dumps(body).replace("CHAT", chat).replace("QUESTION", "100000 words"))
    with httpx.stream("POST", server.url + path, json=filled, timeout=60, trust_env=False) as response:
        assert response.status_code == 200, response.read()
        lines = (line for line in response.iter_lines() if line)
        assert any("0 " in line for line in lines)
        httpx.post(f"{server.url}/api/chat/{chat}/stop", timeout=60, trust_env=False).raise_for_status()
        last = list(lines)[-1]
    assert last.startswith("data: ")
    resumed = httpx.get(f"{server.url}/api/chat/{chat}/stream", timeout=60, trust_env=False)
    assert (resumed.status_code, resumed.content) == (204, b"")
