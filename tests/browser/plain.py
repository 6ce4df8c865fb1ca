"""The plain app on one worker, and what it knows of its streams."""

from __future__ import annotations

import contextlib
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page

from flask_sse_push import MessageAnnouncer
from tests.support.processes import Gunicorn, gunicorn

from .conftest import eventually_on, prefixes


class Server:
    """One worker, so that its figures are all there are."""

    def __init__(self, gunicorn: Gunicorn, announcer: MessageAnnouncer) -> None:
        self.url = gunicorn.url
        self.gunicorn = gunicorn
        self.announcer = announcer

    def listening(self) -> list[set[str]]:
        """The channels of each open stream."""
        with urllib.request.urlopen(f"{self.url}/streams") as answer:
            return [set(channels) for channels in json.load(answer)]

    def wait_for_streams(self, page: Page, *wanted: set[str]) -> None:
        """Blocks until these are the channels of all streams there are."""

        def so() -> bool:
            return sorted(map(sorted, self.listening())) == sorted(map(sorted, wanted))

        eventually_on(page, so)


@contextlib.contextmanager
def running(broker_url: str, folder: Path, **settings: str) -> Iterator[Server]:
    """The plain app with these settings."""
    prefix = {"SSE_PUSH_PREFIX": f"plain{next(prefixes)}"}
    env = {"SSE_PUSH_BROKER_URL": broker_url, **prefix, **settings}
    log = folder / "server.log"
    with gunicorn("tests.apps.plain:app", env=env, log=log) as server:
        announcer = MessageAnnouncer.from_url(broker_url, **prefix)
        yield Server(server, announcer)
        announcer.close()
    assert "Traceback" not in log.read_text()


@pytest.fixture(scope="module")
def server(valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for all tests of a module. Heartbeats are rare: a busy machine's pauses are no dead line."""
    with running(valkey_url, tmp_path_factory.mktemp("plain")) as server:
        yield server
