"""Runs in one process: the events that readers get, whenever they begin, and how a run ends."""

from __future__ import annotations

import gc
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, current_app, has_request_context

from flask_sse_push import BrokerUnavailable, InvalidEvent, SSEBlueprint
from flask_sse_push.errors import Refused
from flask_sse_push.runs import manager
from flask_sse_push.runs.run import Run
from flask_sse_push.testing import Event, SSEClient, StreamRefused, published
from tests.support.deadline import eventually
from tests.support.servers import Server

from .conftest import MakeApp


class Site:
    """An app whose run channels are public, and a gate that holds producers."""

    def __init__(self, app: Flask, sse: SSEBlueprint) -> None:
        self.app, self.sse = app, sse
        self.client = SSEClient(app)
        self.gate = threading.Event()

    def start(self, items: Any, key: str | None = None) -> Run:
        with self.app.app_context():
            return self.sse.start(items, key)

    def stop(self, key: str) -> None:
        with self.app.app_context():
            self.sse.stop(key)

    def read(self, run: Run, cursor: str | None = None) -> list[Event]:
        """Returns all events of a run up to its end."""
        with self.client.open(run.channel, cursor=cursor or run.cursor) as stream:
            events = [stream.next()]
            while events[-1].type != "run.end":
                events.append(stream.next())
        return events

    def words(self, *words: str) -> Iterator[str]:
        """Yields words; waits for the gate before each word after the first."""
        for at, word in enumerate(words):
            if at:
                assert self.gate.wait(10)
            yield word


@pytest.fixture(params=["memory", "valkey"])
def site(request: pytest.FixtureRequest, make_app: MakeApp) -> Iterator[Site]:
    url = "memory://" if request.param == "memory" else request.getfixturevalue("empty_valkey")
    made = Site(*make_app(broker_url=url, public_channels=["run:*"]))
    yield made
    made.gate.set()
    made.client.close()


def text(events: list[Event]) -> str:
    return "".join(event.json()["text"] for event in events if event.type == "run.text")


def test_everybody_reads_the_whole_run_during_it_and_after(site: Site) -> None:
    run = site.start(site.words("Hel", "lo ", "world"), "greeting")
    assert run.started
    assert run.channel == "run:greeting"
    with site.client.open(run.channel, cursor="earliest") as first, site.client.open(run.channel) as second:
        assert first.next("run.begin").json()["run"]
        assert first.next("run.text").json() == {"text": "Hel"}
        seen = first.cursor
        site.gate.set()
        end = second.next("run.end")
        assert end.json()["status"] == "done"
        assert end.json()["error"] is None
    assert text(site.read(run)) == "Hello world"
    assert text(site.read(run, seen)) == "lo world"
    assert text(site.read(run, "earliest")) == "Hello world"


def test_text_that_comes_fast_is_joined_into_few_events(site: Site) -> None:
    run = site.start((f"{n} " for n in range(5000)), "fast")
    events = site.read(run)
    assert text(events) == "".join(f"{n} " for n in range(5000))
    assert len(events) < 60


def test_other_items_are_events_of_their_own(site: Site) -> None:
    run = site.start(lambda: iter([{"done": 1}, ("step", "two"), "x", 3]), "items")
    events = [(event.type, event.data) for event in site.read(run)]
    assert [type for type, _ in events] == ["run.item", "step", "run.text", "run.item", "run.end"]
    assert events[1] == ("step", "two")


def test_a_producer_that_raises_ends_as_failed_after_the_items_it_yielded(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> Iterator[str]:
        yield "so far"
        raise KeyError("a secret")

    events = site.read(site.start(broken(), "broken"))
    assert text(events) == "so far"
    assert events[-1].json() | {"run": ""} == {"run": "", "status": "failed", "error": "KeyError"}
    assert "secret" not in events[-1].data
    eventually(lambda: "the producer of run 'broken' failed" in caplog.text)  # logged after the run has ended


def test_an_item_with_a_number_that_json_does_not_have_fails_the_run(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    events = site.read(site.start(iter(["before", {"prices": [1, float("nan")]}, "after"]), "nan"))
    assert [event.type for event in events] == ["run.text", "run.end"]
    assert events[-1].json() | {"run": ""} == {"run": "", "status": "failed", "error": "InvalidEvent"}
    assert 'data["prices"][1] is NaN, which JSON does not have' in caplog.text


def test_an_item_that_is_too_big_fails_the_run(site: Site) -> None:
    events = site.read(site.start(iter(["before", {"x": "x" * 20_000}, "after"]), "big"))
    assert text(events) == "before"
    assert events[-1].json()["error"] == "MessageTooLarge"


def test_stop_ends_a_run_and_closes_its_generator(site: Site) -> None:
    closed = threading.Event()

    def endless() -> Iterator[str]:
        try:
            while True:
                yield "more "
                site.gate.wait(0.01)
        finally:
            closed.set()

    run = site.start(endless(), "endless")
    with site.client.open(run.channel, cursor=run.cursor) as stream:
        stream.next("run.text")
        stream.next("run.text")
        site.stop("another")
        site.stop("endless")
        assert stream.next("run.end").json()["status"] == "stopped"
    assert closed.wait(5)
    assert text(site.read(run)).startswith("more more")


def test_a_stop_right_after_the_start_stops_the_run(site: Site) -> None:
    for number in range(5):
        run = site.start(site.words("first", "second"), f"k{number}")
        site.stop(run.key)
        assert site.read(run)[-1].json()["status"] == "stopped"


def test_a_key_has_one_run_at_a_time_and_may_be_used_again(site: Site) -> None:
    def spare() -> Iterator[str]:
        yield "never"

    first = site.start(site.words("one", "two"), "key")
    unused = spare()
    second = site.start(unused, "key")
    assert (first.started, second.started) == (True, False)
    assert second.cursor == "earliest"
    assert list(unused) == []  # it was closed
    site.gate.set()
    assert text(site.read(first)) == "onetwo"
    again = site.start(iter(["three"]), "key")
    assert again.started
    assert text(site.read(again)) == "three"


def test_a_generated_key_cannot_be_guessed(site: Site) -> None:
    keys = {site.start(iter(()), None).key for _ in range(3)}
    assert len(keys) == 3
    assert all(len(key) >= 20 for key in keys)


def test_a_producer_has_an_app_context_and_no_request(site: Site) -> None:
    seen: list[object] = []

    def look() -> Iterator[str]:
        seen.append((current_app.name, has_request_context()))
        site.sse.publish("from a run", channel="run:side")
        yield "x"

    with site.app.test_request_context():
        run = site.sse.start(look(), "look")
    assert text(site.read(run)) == "x"
    assert seen == [(site.app.name, False)]
    assert [event.data for event in published(site.app, "run:side")] == ["from a run"]


def test_a_finished_run_leaves_nothing_behind(site: Site) -> None:
    def items() -> Iterator[str]:
        yield "x"

    made = items()
    gone = weakref.ref(made)
    run = site.start(made, "gone")
    del made
    site.read(run)
    with site.app.app_context():
        streaming = site.sse.services.streaming
    eventually(
        lambda: (
            not len(streaming.runs) and not streaming.worker_counts.unreported() and not streaming.runs._own
        )
    )
    eventually(lambda: gc.collect() is not None and gone() is None)
    assert streaming.runs._places_taken == 0


def test_a_worker_refuses_more_runs_than_it_may_have(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager, "MAX_RUNS", 1)
    run = site.start(site.words("a", "b"), "first")
    with pytest.raises(Refused, match="1 producers already") as refused:
        site.start(iter(["x"]), "second")
    assert refused.value.status == 503
    site.gate.set()
    site.read(run)
    eventually(lambda: site.start(iter(["x"]), "third").started if _free(site) else False)


def _free(site: Site) -> bool:
    with site.app.app_context():
        return not site.sse.services.streaming.runs._places_taken


@pytest.mark.parametrize("key", ["", "a b", "x" * 300])
def test_a_key_must_fit_into_a_channels_name(site: Site, key: str) -> None:
    with pytest.raises(InvalidEvent):
        site.start(iter(()), key)
    with pytest.raises(InvalidEvent):
        site.stop(key)


def test_authorize_decides_who_may_read_a_run(make_app: MakeApp) -> None:
    app, sse = make_app()
    with app.app_context():
        run = sse.start(iter(["secret"]), "ada:1")
    with SSEClient(app) as client:
        with pytest.raises(StreamRefused, match="403"):
            client.open(run.channel, cursor=run.cursor)

        @sse.authorize
        def allowed(user: object, channel: str) -> bool:
            return channel.startswith("run:ada:")

        assert client.open(run.channel, cursor=run.cursor).next("run.end").json()["status"] == "done"


def test_a_stopping_worker_fails_its_runs_after_a_grace_period(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, sse = make_app(public_channels=["run:*"])
    gate = threading.Event()

    def stuck() -> Iterator[str]:
        yield "so far"
        gate.wait(20)

    with app.app_context(), SSEClient(app) as client:
        run = sse.start(stuck(), "stuck")
        stream = client.open(run.channel, cursor=run.cursor)
        assert stream.next("run.text").json() == {"text": "so far"}
        monkeypatch.setattr(manager, "GRACE", 0.1)
        monkeypatch.setattr(sse.services.streaming.runs, "_stopping", lambda: True)
        assert stream.next("run.end").json()["error"] == "WorkerStopped"
        eventually(lambda: not len(sse.services.streaming.runs))
        gate.set()


def test_without_a_broker_no_run_starts(make_app: MakeApp) -> None:
    app, sse = make_app(broker_url="redis://127.0.0.1:1/0", publish_timeout=0.2)
    items = (word for word in ["unused"])
    with app.app_context(), pytest.raises(BrokerUnavailable):
        sse.start(items, "key")
    assert list(items) == ["unused"]


def test_a_broker_that_hangs_neither_loses_nor_doubles_text(
    make_app: MakeApp, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broker = Server(tmp_path / "broker").start()
    app, sse = make_app(broker_url=broker.url, public_channels=["run:*"], publish_timeout=0.3)
    paused = threading.Event()

    def count() -> Iterator[str]:
        for number in range(120):
            yield f"{number} "
            if number == 30:
                broker.signal(signal.SIGSTOP)
                paused.set()
            time.sleep(0.01)

    try:
        with app.app_context(), SSEClient(app, timeout=20) as client:
            run = sse.start(count(), "count")
            stream = client.open(run.channel, cursor=run.cursor)
            assert paused.wait(10)
            eventually(lambda: "waits for the broker" in caplog.text)
            broker.signal(signal.SIGCONT)
            events = [stream.next()]
            while events[-1].type != "run.end":
                events.append(stream.next())
            assert text(events) == "".join(f"{number} " for number in range(120))
            sse.services.close()
    finally:
        broker.close()


# -- one response -------------------------------------------------------------------------------------------


@pytest.fixture
def answer(make_app: MakeApp) -> Callable[[Any], list[Event]]:
    def read(items: Any) -> list[Event]:
        app, sse = make_app()

        @app.get("/answer")
        def view() -> Response:
            return sse.stream(items)

        stream = SSEClient(app).get("/answer")
        assert stream.response.headers["X-Accel-Buffering"] == "no"
        assert stream.response.headers["Cache-Control"].startswith("no-cache")
        events: list[Event] = []
        while not events or events[-1].type != "sse.close":
            assert len(events) < 1000, "the stream does not end"
            events.append(
                stream.next("sse.close") if events and events[-1].type == "run.end" else stream.next()
            )
        assert events[-1].json()["reconnect"] is False
        return events[:-1]

    return read


def test_a_response_streams_a_generator_and_keeps_the_client_from_reconnecting(
    answer: Callable[[Any], list[Event]],
) -> None:
    events = answer(word for word in ("a", "b", {"n": 1}))
    assert [event.type for event in events] == ["run.begin", "run.text", "run.text", "run.item", "run.end"]
    assert text(events) == "ab"
    assert events[-1].json()["status"] == "done"
    assert {event.id for event in events} == {""}


def test_a_response_whose_generator_raises_ends_with_run_end(answer: Callable[[Any], list[Event]]) -> None:
    def broken() -> Iterator[str]:
        yield "a"
        raise ValueError("a secret")

    end = answer(broken)[-1].json()
    assert (end["status"], end["error"]) == ("failed", "ValueError")


def test_a_response_with_a_number_that_json_does_not_have_ends_as_failed(
    answer: Callable[[Any], list[Event]], caplog: pytest.LogCaptureFixture
) -> None:
    events = answer(iter(["a", ("price", [float("inf")]), "b"]))
    assert [event.type for event in events] == ["run.begin", "run.text", "run.end"]
    assert events[-1].json() | {"run": ""} == {"run": "", "status": "failed", "error": "InvalidEvent"}
    assert "data[0] is Infinity, which JSON does not have" in caplog.text


def test_a_client_that_leaves_closes_the_generator(make_app: MakeApp) -> None:
    app, sse = make_app()
    closed = threading.Event()

    def endless() -> Iterator[str]:
        try:
            while True:
                yield "more"
        finally:
            closed.set()

    @app.get("/answer")
    def view() -> Response:
        return sse.stream(endless())

    response = app.test_client().get("/answer")
    body = response.iter_encoded()
    next(body)
    next(body)
    response.close()
    assert closed.is_set()
