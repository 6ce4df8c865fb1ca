"""Runs the plain app on one worker, and reads from it which streams are open."""

from __future__ import annotations

import contextlib
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from flask_sse_push import MessageAnnouncer
from tests.support.processes import Gunicorn, gunicorn

from .conftest import eventually_on, prefixes


class Server:
    """The server. It has one worker, so the worker's list contains all streams."""

    def __init__(self, gunicorn: Gunicorn, announcer: MessageAnnouncer) -> None:
        self.url = gunicorn.url
        self.gunicorn = gunicorn
        self.announcer = announcer

    def listening(self) -> list[set[str]]:
        """Returns the channels of each open stream."""
        with urllib.request.urlopen(f"{self.url}/streams") as answer:
            return [set(channels) for channels in json.load(answer)]

    def wait_for_streams(self, page: Page, *wanted: set[str]) -> None:
        """Blocks until the open streams have exactly these channels, one set for each stream."""

        def are_open() -> bool:
            return sorted(map(sorted, self.listening())) == sorted(map(sorted, wanted))

        eventually_on(page, are_open)


@contextlib.contextmanager
def running(
    broker_url: str, folder: Path, app: str = "tests.apps.plain:app", **settings: str
) -> Iterator[Server]:
    """Runs the plain app, or another app, with these settings until the block ends."""
    prefix: dict[str, Any] = {"SSE_PUSH_PREFIX": f"plain{next(prefixes)}"}
    env = {"SSE_PUSH_BROKER_URL": broker_url, **prefix, **settings}
    log = folder / "server.log"
    with gunicorn(app, env=env, log=log) as server:
        announcer = MessageAnnouncer.from_url(broker_url, **prefix)
        yield Server(server, announcer)
        announcer.close()
    assert "Traceback" not in log.read_text()


@pytest.fixture(scope="module")
def server(valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests of a module.

    Heartbeats are rare, so clients on a busy machine do not give up a connection because of a pause.
    """
    with running(valkey_url, tmp_path_factory.mktemp("plain")) as server:
        yield server
