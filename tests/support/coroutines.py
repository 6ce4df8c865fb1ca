"""Runs a coroutine, also in a process in which playwright runs an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def run(function: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Calls a coroutine function in a thread with an event loop of its own, and waits until it has ended."""
    with ThreadPoolExecutor(1) as threads:
        threads.submit(lambda: asyncio.run(function())).result(60)
