"""The channel policies: which channels are open to everybody, and how much of which history is kept.

The app and the process `ticker.py` publish, so both need them. The admin page shows the policy of a channel.
"""

from __future__ import annotations

from typing import Any

#: Value of SSE_PUSH_CHANNELS. What a policy leaves out comes from the other settings. `may_listen` in
#: `__init__.py` decides about the channels that are not open.
CHANNELS: dict[str, dict[str, Any]] = {
    "news": {"public": True},
    "tour": {"public": True},
    "ticks": {"public": True, "history": 200},
    # A user who comes back after a night finds the newest notifications.
    "user:*": {"history": 50, "ttl": 86_400},
    "room:*": {"history": 200, "presence": True},
    # A line of the log may be long.
    "log": {"bytes": 1_000_000},
}
