"""`flask sse tail`: follows a stream or a channel and shows each event as it comes.

`url` follows a stream over HTTP, `channel` follows channels at the broker. Both put `news` into a queue.
`summary` counts them, `screen` draws a live table, `command` prints lines.
"""

from __future__ import annotations

from .command import register

__all__ = ["register"]
