"""`flask sse doctor`: examines a set-up and prints what is wrong, why it matters, and what to do.

`settings`, `live`, `server`, `broker` and `connection` each examine one part of the set-up. They yield
findings, which `command` prints. If the broker cannot be used, `unreachable` says
why; if an answer is no stream, `refusal` does; if a URL cannot be opened, `unreachable_url` does.
"""

from __future__ import annotations

from .command import register

__all__ = ["register"]
