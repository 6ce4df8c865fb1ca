"""`flask sse doctor`: examines a set-up and prints what is wrong, why it matters, and what to do.

`settings`, `server`, `broker` and `connection` each examine one part of the set-up and yield findings.
`command` runs these four modules and prints their findings.
"""

from __future__ import annotations

from .command import register

__all__ = ["register"]
