"""`flask sse tail`: what a stream or a channel brings, as it comes."""

from __future__ import annotations

from .command import add_command

__all__ = ["add_command"]
