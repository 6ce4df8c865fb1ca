"""How much memory a process or a function keeps, and how fast it grows."""

from __future__ import annotations

import ctypes
import gc
import tracemalloc
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


def malloc_kb() -> dict[str, int]:
    """What malloc has given to this process, and what it keeps for later although the process has freed it.
    Empty if the C library does not tell."""
    mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo is None:
        return {}
    mallinfo.restype = _MallInfo
    info = mallinfo()
    return {"malloc_used_kb": (info.used + info.mapped) // 1024, "malloc_free_kb": info.free // 1024}


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
