"""`flask sse capacity`: what a load takes, from what the benchmarks measured."""

from __future__ import annotations

from .command import add_command

__all__ = ["add_command"]
