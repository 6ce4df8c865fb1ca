"""The witness app behind imports that a preloading master makes before gevent has patched anything."""

from __future__ import annotations

import queue
import threading

import redis

from .witness import app

#: Made unpatched, as a careless application makes them.
lock = threading.Lock()
waiting: queue.Queue[int] = queue.Queue()
client = redis.Redis()

__all__ = ["app"]
