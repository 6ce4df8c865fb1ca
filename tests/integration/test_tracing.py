"""Traced events: the field on the wire, the spans, and the clients that must pass over the field."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from httpx_sse._decoders import SSEDecoder
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from flask_sse_push.brokers import tracing
from flask_sse_push.protocol.entry import Entry
from flask_sse_push.testing import SSEClient
from flask_sse_push.testing.events import Parser
from tests.support.deadline import eventually
from tests.support.spans import collected, fields, view

from .conftest import MakeApp
from .test_blueprint import listening

LINE = re.compile(r"traceparent: 00-([0-9a-f]{32})-([0-9a-f]{16})-0[13]")
#: A context that no span of the tests has.
FOREIGN = f"00-{'ab' * 16}-{'cd' * 8}-01"
#: W3C Trace Context: ids of zeros only, and the version ff, are invalid.
INVALID = [
    f"00-{'0' * 32}-{'1' * 16}-01",
    f"00-{'1' * 32}-{'0' * 16}-01",
    f"00-{'0' * 32}-{'0' * 16}-01",
    f"ff-{'1' * 32}-{'1' * 16}-01",
]


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    with collected() as exporter:
        yield exporter


def named(spans: InMemorySpanExporter, name: str) -> dict[str, Any]:
    """The only span of a name, once it has ended."""
    eventually(lambda: any(span.name == name for span in spans.get_finished_spans()))
    [span] = [span for span in spans.get_finished_spans() if span.name == name]
    return fields(span)


def test_one_trace_has_the_view_the_broker_the_worker_and_the_browser(
    make_app: MakeApp, spans: InMemorySpanExporter
) -> None:
    app, sse = make_app(trace=1)
    client = app.test_client()
    with listening(client, "/stream") as reader:
        reader.next()
        with app.app_context(), view():
            sse.publish({"a": 1}, type="news", retry=5)
        event = reader.next()
        worker = named(spans, "sse deliver")
    found = LINE.fullmatch(f"traceparent: {event['traceparent']}")
    assert found is not None
    now = round(time.time() * 1000)
    report = {"traces": [[event["traceparent"], now - 20, now]]}
    assert client.post("/stream/report", json=report).status_code == 204
    browser, broker, own = named(spans, "sse handle"), named(spans, "sse publish"), named(spans, "view")
    assert {each["trace"] for each in (own, broker, worker, browser)} == {int(found[1], 16)}
    assert [each["parent"] for each in (own, broker, worker, browser)] == [
        None, own["id"], broker["id"], broker["id"],
    ]  # fmt: skip
    assert round(browser["end"] - browser["start"], 3) == 0.02
    assert own["start"] <= broker["start"] <= worker["end"]


def test_batches_and_channels_of_one_event_make_one_span_each(
    make_app: MakeApp, spans: InMemorySpanExporter
) -> None:
    app, sse = make_app(trace=1, public_channels="*")
    with listening(app.test_client(), "/stream?channels=a,b&batch=10") as reader:
        reader.next()
        with app.app_context(), view():
            sse.publish_many([{"data": 1, "channel": ["a", "b"]}, {"data": 2, "channel": "a"}])
        batch = json.loads(reader.next()["data"])
        eventually(lambda: sum(span.name == "sse deliver" for span in spans.get_finished_spans()) == 2)
    assert [member["data"] for member in batch] == ["1\t", "2\t"]
    assert len({member["traceparent"] for member in batch}) == 1
    named(spans, "sse publish")


def test_events_that_are_not_traced_have_no_more_bytes(
    make_app: MakeApp, spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies = []
    for share, inside in ((0, True), (1, False), (0.5, True)):
        app, sse = make_app(trace=share)
        monkeypatch.setattr("random.random", lambda: 0.5)
        with listening(app.test_client(), "/stream") as reader:
            reader.next()
            with app.app_context():
                if inside:
                    with view():
                        sse.publish("x")
                else:
                    sse.publish("x")
            bodies.append({name: value for name, value in reader.next().items() if name != "id"})
    assert bodies == [{"data": "x"}] * 3
    assert {span.name for span in spans.get_finished_spans()} == {"view"}


def test_without_opentelemetry_the_log_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    tracing.tracing_of.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert [tracing.tracing_of(share) for share in (0.3, 0.3, 0.0)] == [None] * 3
    tracing.tracing_of.cache_clear()
    [record] = caplog.records
    assert "pip install flask-sse-push[trace]" in record.message


@pytest.mark.parametrize(
    "traces",
    [
        5,
        [FOREIGN],
        [[FOREIGN, 1]],
        [[FOREIGN, 1, 2]],
        [["00-x", "now", "now"]],
        [[FOREIGN + "0", "now", "now"]],
        *([[each, "now", "now"]] for each in INVALID),
        [[FOREIGN, "now", True]],
        [[FOREIGN, "now", 10**15]],
        [[FOREIGN, "now", "now"]] * 6,
    ],
)
def test_a_report_with_wrong_traces_is_refused(
    make_app: MakeApp, spans: InMemorySpanExporter, traces: Any
) -> None:
    now = str(round(time.time() * 1000))
    body = json.loads(json.dumps({"traces": traces}).replace('"now"', now))
    app, _ = make_app(trace=1)
    assert app.test_client().post("/stream/report", json=body).status_code == 400
    assert not spans.get_finished_spans()


def test_other_clients_pass_over_the_field(make_app: MakeApp, spans: InMemorySpanExporter) -> None:
    app, sse = make_app(trace=1)
    with app.app_context(), view():
        sse.publish("missed", type="news")
        sse.publish("packed " * 500, compress="auto")
    with SSEClient(app).open(cursor="earliest") as stream:
        events = stream.take(2)
        with app.app_context(), view():
            sse.publish("live")
        events += stream.take(1)
    assert [(event.type, event.data) for event in events[::2]] == [("news", "missed"), ("message", "live")]
    assert events[1].is_compressed
    frame = f"id: e-1\nevent: news\ntraceparent: {FOREIGN}\ndata: x\n\n"
    decoder = SSEDecoder()
    [event] = [found for line in frame.split("\n")[:-1] if (found := decoder.decode(line))]
    assert (event.id, event.event, event.data) == ("e-1", "news", "x")
    [parsed] = Parser().feed(frame.encode())
    assert (parsed.id, parsed.type, parsed.data) == ("e-1", "news", "x")


@pytest.mark.parametrize("format", ["ai-sdk", "ag-ui", "openai"])
def test_the_formats_of_ai_front_ends_show_nothing_of_a_trace(
    make_app: MakeApp, spans: InMemorySpanExporter, format: str
) -> None:
    app, sse = make_app(trace=1)

    @app.get("/answer")
    def answer() -> Any:
        with view():
            return sse.stream(iter(["It ", "works"]), format)

    text = app.test_client().get("/answer").text
    assert "works" in text
    assert "traceparent" not in text


@pytest.mark.parametrize(
    "line",
    [
        b"traceparent: x\n",
        f"traceparent: {FOREIGN} \n".encode(),
        b"tracestate: a\n",
        *(f"traceparent: {each}\n".encode() for each in INVALID),
    ],
)
def test_a_worker_refuses_an_event_with_a_field_that_no_publisher_writes(line: bytes) -> None:
    entry = Entry("e", 1, 0, line + b"data: x\n\n", channels=("a",))
    with pytest.raises(ValueError, match="does not begin"):
        entry.check_body()
    entry = Entry("e", 1, 0, f"traceparent: {FOREIGN}\ndata: x\n\n".encode(), channels=("a",))
    entry.check_body()
    assert entry.traceparent == FOREIGN.encode()
