"""A process makes one set of parts, however many threads ask at once; a forked child makes its own."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from flask import Flask

from flask_sse_push import SSEBlueprint
from flask_sse_push.brokers.base import Broker
from flask_sse_push.brokers.url import connect_broker
from flask_sse_push.config import Settings
from flask_sse_push.hub.listener import StreamListener
from flask_sse_push.web import services as module
from flask_sse_push.web.services import Services

APPS, THREADS = 200, 8


@pytest.fixture
def frequent_switches() -> Iterator[None]:
    """Lets threads switch within a few bytecodes, so that races show."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def make_services() -> Services:
    settings = Settings.load({"SSE_PUSH_BROKER_URL": "memory://"}, {})
    return Services(settings, str, StreamListener(), lambda grant, channels: [])


@pytest.mark.usefixtures("frequent_switches")
def test_threads_that_ask_at_once_get_the_same_parts_with_one_set_of_listeners(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[object] = []
    for name in ("connect_broker", "Hub"):
        monkeypatch.setattr(module, name, counted(getattr(module, name), made))
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in range(APPS):
            app, sse = Flask("app"), SSEBlueprint("sse")
            app.config.update(SSE_PUSH_BROKER_URL="memory://", SSE_PUSH_PRESENCE_CHANNELS=["room:*"])
            app.register_blueprint(sse, url_prefix="/stream")
            with app.app_context():
                services = sse.services
            start = threading.Barrier(THREADS)
            parts = list(pool.map(connect_client, [app] * THREADS, [services] * THREADS, [start] * THREADS))
            assert len(made) == 2
            assert set(parts) == {(services.publishing, services.streaming)}
            assert len(services.streaming.worker_counts._listeners) == 2  # presence and runs
            services.close()
            made.clear()


def counted(make: Callable[..., object], made: list[object]) -> Callable[..., object]:
    """Returns `make`; each call adds its result to `made`."""

    def make_and_note(*arguments: object) -> object:
        result = make(*arguments)
        made.append(result)
        return result

    return make_and_note


def connect_client(
    app: Flask, services: Services, start: threading.Barrier
) -> tuple[module.Publishing, module.Streaming]:
    """Opens a stream, at the same time as the other threads. Returns the parts this thread sees."""
    start.wait()
    app.test_client().head("/stream")
    return services.publishing, services.streaming


def test_a_process_that_only_publishes_makes_no_hub() -> None:
    services = make_services()
    services.publishing.announcer.publish("hello")
    assert "streaming" not in vars(services)
    services.close()


def test_close_closes_the_parts_and_the_next_ones_are_new() -> None:
    services = make_services()
    before = services.streaming, services.publishing
    services.close()
    services.close()
    assert services.streaming is not before[0]
    assert services.publishing is not before[1]
    services.close()


def exit_code_of_child(work: Callable[[], bool]) -> int:
    """Runs `work` in a forked child. Returns 0 when it returned True, else another number."""
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        try:
            os._exit(0 if work() else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_forked_child_makes_parts_of_its_own() -> None:
    services = make_services()
    publishing, streaming = services.publishing, services.streaming

    def work() -> bool:
        return services.streaming is not streaming and services.publishing is not publishing

    assert exit_code_of_child(work) == 0
    assert (services.publishing, services.streaming) == (publishing, streaming)
    services.close()


def test_a_fork_while_another_thread_makes_the_parts_does_not_block_the_child(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parent, making, forked = os.getpid(), threading.Event(), threading.Event()

    def connect(settings: Settings, root: str | None) -> Broker:
        if os.getpid() == parent:
            making.set()
            assert forked.wait(20)
        return connect_broker(settings, root)

    monkeypatch.setattr(module, "connect_broker", connect)
    services = make_services()
    thread = threading.Thread(target=lambda: services.publishing)
    thread.start()
    assert making.wait(10)
    assert exit_code_of_child(lambda: services.publishing.announcer is not None) == 0
    forked.set()
    thread.join()
    services.close()
