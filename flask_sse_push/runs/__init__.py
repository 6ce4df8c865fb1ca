"""Runs: generators that answer in pieces, as language models and long jobs do, in the background or not."""

from __future__ import annotations

from .manager import STOP, Run, Runs, checked_key
from .oneoff import streamed
from .output import Items

__all__ = ["STOP", "Items", "Run", "Runs", "checked_key", "streamed"]
