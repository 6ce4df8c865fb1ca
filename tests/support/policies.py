"""Channel policies for tests that need no other settings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flask_sse_push.config import ChannelPolicies, Settings


def keeping(size: int, ttl: float, **policies: dict[str, Any]) -> ChannelPolicies:
    """Returns policies that keep `size` events of each channel for `ttl` seconds.

    :param policies: by channel pattern, what is different for some channels. `x` stands for the pattern `x*`.
    """
    settings = Settings(history_size=size, history_ttl=ttl)
    rules = Settings.load(
        {"SSE_PUSH_CHANNELS": {f"{name}*": policy for name, policy in policies.items()}}, {}
    )
    return replace(settings, channels=rules.channels).policies
