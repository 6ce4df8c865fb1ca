"""Threads that ask the app's rules side by side. A rule that hangs does not hold up the other streams."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque

from ..hub import background

#: At most this many threads ask rules at the same time, not counting rules that hang. Each rule may need a
#: connection of the app to its database.
SIDE_BY_SIDE = 10
#: At most this many hanging rules give their places to other threads. A further rule that hangs keeps its
#: place.
MAX_HANGING = 100


class Question(ABC):
    """A question to the app's rules. `due` is the monotonic time from which it should be asked."""

    def __init__(self, due: float) -> None:
        self.due = due
        self.replaced = False  # whether another thread took the place of the thread that asks this question
        self.done = False  # whether the thread that asked this question does not ask it any more

    @abstractmethod
    def ask(self) -> None:
        """Asks the app's rules and uses the answer. May block for ever."""


class RuleThreads:
    """Asks questions in the order of `put`, at most SIDE_BY_SIDE at a time.

    Any thread may call the methods. They do not block. A thread starts when there is a question for it, and
    ends when no question is left.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[Question] = deque()
        self._places = SIDE_BY_SIDE  # how many more threads may start now
        self._hanging = 0  # how many threads were replaced and have not returned

    def put(self, question: Question) -> None:
        """Adds a question."""
        with self._lock:
            self._waiting.append(question)
            starts = self._places > 0
            self._places -= starts
        if starts:
            background.start("rules", self._ask_all, repeat=False)

    def replace(self, question: Question) -> None:
        """Gives the place of a question that hangs to another thread."""
        with self._lock:
            if question.replaced or question.done or self.is_stuck:
                return
            question.replaced = True
            self._hanging += 1
            starts = bool(self._waiting)
            self._places += not starts
        if starts:
            background.start("rules", self._ask_all, repeat=False)

    @property
    def is_stuck(self) -> bool:
        """Whether MAX_HANGING rules hang, so that a further hanging rule keeps its place."""
        return self._hanging >= MAX_HANGING

    def waiting(self) -> tuple[int, float]:
        """Returns how many questions wait for a thread, and when the oldest of them should have been asked.

        This is a monotonic time. If no question waits, it is infinite.
        """
        with self._lock:
            return len(self._waiting), self._waiting[0].due if self._waiting else float("inf")

    def close(self) -> None:
        """Drops the questions that wait. May be called twice."""
        with self._lock:
            self._waiting.clear()

    def _ask_all(self) -> None:
        asked: Question | None = None
        try:
            while (asked := self._next(asked)) is not None:
                try:
                    asked.ask()
                finally:
                    asked.done = True
        except BaseException:  # something ends this thread
            with self._lock:
                self._give_up_place(asked)
            raise

    def _next(self, asked: Question | None) -> Question | None:
        """Returns the next question for a thread; None if the thread must end.

        :param asked: the question that the thread has just asked.
        """
        with self._lock:
            if self._waiting and not (asked and asked.replaced):
                return self._waiting.popleft()
            self._give_up_place(asked)
            return None

    def _give_up_place(self, asked: Question | None) -> None:
        if asked is not None and asked.replaced:
            self._hanging -= 1
        else:
            self._places += 1
