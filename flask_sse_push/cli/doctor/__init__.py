"""`flask sse doctor`: examines a set-up and prints what is wrong, why it matters, and what to do.

`settings`, `server`, `broker` and `connection` each examine one part and yield findings. `command` runs all
of them and prints the findings.
"""

from __future__ import annotations

from .command import register

__all__ = ["register"]
