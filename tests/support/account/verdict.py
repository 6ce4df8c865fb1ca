"""The faults found in what streams got."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["lost", "doubled", "disordered", "needless"]

#: A verdict describes so many faults in words. It only counts the others.
MAX_PROBLEMS = 10


@dataclass
class Verdict:
    """Counts over all streams, and the first faults in words."""

    strict: bool = False  # raise AssertionError at the first fault
    lost: int = 0  # an event did not come, or a cursor ran ahead of it
    doubled: int = 0
    disordered: int = 0  # out of order, for others, or not what the protocol allows here
    needless: int = 0  # resets although the broker had everything; only the model tests can know
    resets: int = 0
    delivered: int = 0
    resumed: int = 0
    problems: list[str] = field(default_factory=list)

    def fault(self, kind: Kind, problem: str) -> None:
        """Counts a fault, or raises it."""
        if self.strict:
            raise AssertionError(f"{kind}: {problem}")
        setattr(self, kind, getattr(self, kind) + 1)
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)

    def add(self, other: Verdict) -> None:
        """Adds the counts of another verdict, and its problems."""
        for name in ("lost", "doubled", "disordered", "needless", "resets", "delivered", "resumed"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.problems = [*self.problems, *other.problems][:MAX_PROBLEMS]

    def clean(self) -> bool:
        """Whether there was no fault."""
        return not (self.lost or self.doubled or self.disordered or self.needless)

    def __str__(self) -> str:
        counts = f"LOST {self.lost} DUP {self.doubled} ORDER {self.disordered}"
        counts += f", {self.delivered} delivered, {self.resumed} resumed, {self.resets} resets"
        return "; ".join([counts, *self.problems])
