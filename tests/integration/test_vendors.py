"""The generators of docs/ai.md, with the real client libraries of two vendors and a local server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flask_sse_push.testing import Event, SSEClient
from tests.support import vendors
from tests.support.pages import block
from tests.support.vendors import Vendor

from .conftest import MakeApp

QUESTION = [
    {"role": "user", "parts": [{"type": "text", "text": "Is it "}, {"type": "text", "text": "warm?"}]}
]
ASKED = [{"role": "user", "content": "Is it warm?"}]
CALL = ("call_1", "weather", {"city": "Ulm"})
OUTPUT = {"city": "Ulm", "celsius": 17}
#: What the generator yields if the model thinks, calls a tool, and then answers.
YIELDED = [
    {"type": "reasoning", "text": "I ask."},
    {"type": "tool_call", "id": "call_1", "name": "weather", "input": {"city": "Ulm"}},
    {"type": "tool_result", "id": "call_1", "output": OUTPUT},
    "It ",
    "is ",
    "warm. ",
]

# A later version of a library may call the page's model deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:The model")

Answer = Callable[[list[dict[str, str]]], Iterator[Any]]


@pytest.fixture
def vendor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Vendor]:
    with vendors.vendor() as server:
        for name, path in (("OPENAI", "/v1"), ("ANTHROPIC", "")):
            monkeypatch.setenv(f"{name}_API_KEY", "none")
            monkeypatch.setenv(f"{name}_BASE_URL", server.url + path)
        yield server


def on_the_page(having: str, name: str) -> Any:
    """Returns a function of the block of docs/ai.md that contains a text."""
    namespace: dict[str, Any] = {}
    exec(block("docs/ai.md", "python", having), namespace)
    return namespace[name]


def plain() -> list[dict[str, str]]:
    messages: list[dict[str, str]] = on_the_page("def plain", "plain")(QUESTION)
    return messages


@pytest.fixture(params=["openai", "anthropic"])
def answer(request: pytest.FixtureRequest, vendor: Vendor) -> Iterator[Answer]:
    """The generator for one vendor, whose server has the scripts of a tool call and of an answer."""
    if request.param == "openai":
        script = [vendors.openai_reasoning("I ask."), vendors.openai_call(*CALL)]
        vendor.scripts.put(vendors.openai(*script))
        vendor.scripts.put(vendors.openai(vendors.openai_text("It is warm.")))
    else:
        blocks = [vendors.anthropic_thinking("I ask."), vendors.anthropic_call(*CALL)]
        vendor.scripts.put(vendors.anthropic(*blocks, stop="tool_use"))
        vendor.scripts.put(vendors.anthropic(vendors.anthropic_text("It is warm.")))
    function = on_the_page(f"from {request.param} import", "answer")
    yield function
    function.__globals__["client"].close()


def test_a_generator_yields_reasoning_tool_calls_and_text(vendor: Vendor, answer: Answer) -> None:
    assert list(answer(plain())) == YIELDED
    first, second = (body.get("input") or body["messages"] for body in vendor.bodies)
    assert first == ASKED
    assert second[0] == ASKED[0]
    told = json.dumps(second[-1])
    assert "call_1" in told
    assert json.dumps(json.dumps(OUTPUT)) in told


def test_stop_closes_the_stream_of_the_vendor(vendor: Vendor, answer: Answer, make_app: MakeApp) -> None:
    assert vendor.scripts.get()  # the first request gets the second script, whose first word never ends
    script = vendor.scripts.get()
    word = next(at for at, event in enumerate(script) if "It " in json.dumps(event))
    vendor.scripts.put(script[: word + 1])
    vendor.endless = True
    app, sse = make_app(public_channels=["run:*"])
    client = SSEClient(app)
    with app.app_context():
        run = sse.start(answer(plain()), "chat")
        with client.open(run.channel, cursor=run.cursor) as stream:
            assert stream.next("run.text").json()["text"].startswith("It ")
            assert vendor.left.empty()
            sse.stop("chat")
            event: Event = stream.next("run.end")
    assert event.json()["status"] == "stopped"
    assert vendor.left.get(timeout=60) in ("/v1/responses", "/v1/messages")
    client.close()


def test_an_answer_that_the_vendor_breaks_off_fails(vendor: Vendor, answer: Answer) -> None:
    assert vendor.scripts.get()
    vendor.scripts.put(vendor.scripts.get()[:-2])  # the events that say why the answer ended are missing
    words = answer(plain())
    assert [next(words) for _ in range(3)] == ["It ", "is ", "warm. "]
    with pytest.raises((RuntimeError, ConnectionError)):
        next(words)
