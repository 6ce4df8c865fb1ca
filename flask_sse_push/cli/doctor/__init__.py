"""`flask sse doctor`: examines a set-up and prints what is wrong, why it matters, and what to do.

`settings`, `live`, `server`, `broker`, `outbox` and `connection` each examine one part of the set-up. They
yield findings, which `command` prints. `unreachable` says why the broker cannot be used, `refusal` why an
answer is no stream, and `unreachable_url` why a URL cannot be opened.
"""

from __future__ import annotations

from .command import register

__all__ = ["register"]
