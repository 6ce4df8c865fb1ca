"""Runs: generators that yield in pieces, as language models and long jobs do.

Offers: `Runs` (runs of one worker, in the background; clients of any worker can follow them) and
`run_body` (a generator as the body of one response). Inside, `producer` runs one generator, `output`
turns its items into events, `manager` publishes them. Must not know: requests, who may listen, how streams
are served.
"""

from __future__ import annotations

from .manager import STOP, Run, Runs, run_channel
from .output import Items
from .response import run_body

__all__ = ["STOP", "Items", "Run", "Runs", "run_body", "run_channel"]
