"""Counts failures of callbacks and ends of threads, for code that knows no blueprint.

The blueprint of this process that reports next adds these numbers to its own counters, and sets them to 0
here.
"""

from __future__ import annotations

from collections import Counter

from ..brokers import forks, native_threads

#: At most this many labels of one name are told apart; further labels count as "other".
MAX_LABELS = 100

_counts: Counter[tuple[str, str]] = Counter()
_labels: set[tuple[str, str]] = set()
_lock = native_threads.lock()


def add(name: str, label: str) -> None:
    """Adds one to the count with this name and label. Any thread may call. Never blocks."""
    with _lock:
        if (name, label) not in _labels and len(_labels) >= MAX_LABELS:
            label = "other"
        _labels.add((name, label))
        _counts[name, label] += 1


def take() -> dict[tuple[str, str], int]:
    """Returns what was counted since the last call, by name and label."""
    if not _counts:  # the usual case
        return {}
    with _lock:
        taken = dict(_counts)
        _counts.clear()
    return taken


def _forget_parents_counts() -> None:
    global _lock
    _lock = native_threads.lock()
    _counts.clear()


forks.call_in_child(_forget_parents_counts)
