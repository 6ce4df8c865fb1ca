"""`tests.apps.inspected`, after imports that a master with --preload makes before gevent patches anything."""

from __future__ import annotations

import queue
import threading

import redis

from .inspected import app

#: Made before gevent has patched anything, as a careless application makes them.
lock = threading.Lock()
waiting: queue.Queue[int] = queue.Queue()
client = redis.Redis()

__all__ = ["app"]
