"""How much memory a process or a function keeps, and how fast it grows."""

from __future__ import annotations

import ctypes
import gc
import os
import re
import sys
import tempfile
import tracemalloc
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

#: Seconds, and the kB that a process had then.
Point = tuple[float, int]


def resident_kb(pid: int) -> int:
    """The resident memory of a process, in kB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


class _MallInfo(ctypes.Structure):
    """`struct mallinfo2` of glibc, see mallinfo(3)."""

    _fields_ = tuple(
        (name, ctypes.c_size_t) for name in ("arena", "1", "2", "3", "mapped", "5", "6", "used", "free", "9")
    )


_libc = ctypes.CDLL(None)


def allocated() -> dict[str, int]:
    """What this process has allocated, in kB: what it uses, and what it has freed and the allocators keep.

    Small objects of Python lie in arenas of its own, everything else comes from malloc. Needs glibc.
    """
    _libc.mallinfo2.restype = _MallInfo
    malloc, small = _libc.mallinfo2(), _arenas()
    used = malloc.used + malloc.mapped + small["bytes in allocated blocks"]
    free = malloc.free + small["bytes in available blocks"] + small["unused pools"]
    return {"used_kb": used // 1024, "freed_kb": free // 1024}


def _arenas() -> Counter[str]:
    """The numbers of bytes that `sys._debugmallocstats` writes to stderr, by name."""
    with tempfile.TemporaryFile() as file:
        stderr = os.dup(2)
        try:
            os.dup2(file.fileno(), 2)
            sys._debugmallocstats()
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
        file.seek(0)
        text = file.read().decode(errors="replace")
    lines = re.findall(r"^(?:# |\d+ )([a-z ]+?)(?: \* \d+ bytes)? +=\s*([\d,]+)$", text, re.M)
    return Counter({name: int(number.replace(",", "")) for name, number in lines})


def give_back() -> None:
    """Gives the memory that malloc keeps for later back to the system. Needs glibc."""
    _libc.malloc_trim(0)


def kept_by(act: Callable[[], object]) -> int:
    """How many bytes of memory are still in use after `act`, which were not before."""
    tracemalloc.start()
    try:
        act()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def sets_of_channels(count: int) -> list[str]:
    """Different sets of 50 channels with long names, each as one string with commas."""
    return [",".join(f"{number}:{'long' * 24}:{of}" for of in range(50)) for number in range(count)]


def slope(points: Sequence[Point]) -> float:
    """By how many kB a second memory grew: the slope of the least-squares line."""
    mean_at = sum(at for at, _ in points) / len(points)
    mean_kb = sum(kb for _, kb in points) / len(points)
    spread = sum((at - mean_at) ** 2 for at, _ in points)
    return sum((at - mean_at) * (kb - mean_kb) for at, kb in points) / spread
