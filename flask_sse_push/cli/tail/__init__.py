"""`flask sse tail`: follows a stream or a channel and shows each event as it comes.

`url` follows a stream over HTTP, and `channel` reads channels from the broker. Both put items of the module
`news` into a queue. `summary` counts these items, `screen` draws a live table, and `command` prints lines.
"""

from __future__ import annotations

from .command import register

__all__ = ["register"]
