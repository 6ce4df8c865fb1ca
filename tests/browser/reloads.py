"""Reloads a page with useChat at random moments of its answers, while workers are killed and replaced."""

from __future__ import annotations

import os
import random
import signal
from dataclasses import dataclass, field

from playwright.sync_api import Page

from .chat import Chat, ChatSite

#: How many words an answer has. The app yields one every 10 ms.
WORDS = 200
#: Notes when the page asks for the answer that is under way.
NOTE_REQUESTS = """
const { fetch } = window;
window.fetch = (...request) => (performance.mark("asked"), fetch(...request));
"""
#: Returns when the page had the first text, and how long after its request, in milliseconds; [] without text.
FIRST_TEXT = """() => {
  const [[text], asked] = ["first-text", "asked"].map((name) => performance.getEntriesByName(name));
  return text ? [[text.startTime, text.startTime - asked[0].startTime]] : [];
}"""
#: At most how many seconds pass between two reloads.
PAUSE = 0.5


@dataclass
class Reloads:
    """Reloads a page at least `wanted` times. What it found is in the other fields."""

    site: ChatSite
    page: Page
    wanted: int
    chance: random.Random
    done: int = 0
    answers: int = 0
    faults: list[str] = field(default_factory=list)
    #: What the page showed in the end, and what it should have shown, if these differ.
    wrong: list[tuple[list[str], list[str]]] = field(default_factory=list)
    #: Milliseconds to the first text of the answer that is under way: from the start of a reload, and from
    #: the page's request to resume.
    first_texts: list[tuple[float, float]] = field(default_factory=list)

    def run(self) -> None:
        self.page.add_init_script(NOTE_REQUESTS)
        while self._goes_on():
            chat = Chat(self.site, self.page)
            for _ in range(3):
                self._answer(chat)
            chat.close()

    def _goes_on(self) -> bool:
        return self.done < self.wanted or len(self.faults) < 2

    def _answer(self, chat: Chat) -> None:
        """Asks a question, and reloads the page until the answer has ended. Then compares the answer."""
        chat.ask(f"{WORDS} words")
        self.answers += 1
        reloaded = False
        while chat.goes_on() and self._goes_on():
            self.page.wait_for_timeout(1000 * self.chance.uniform(0, PAUSE))
            if not self._fault(chat):
                self._note_first_text(reloaded)
                self.page.reload()
                self.done += 1
                reloaded = True
        try:
            chat.wait(lambda: chat.status == "ready" and chat.texts() == chat.expected())
        except AssertionError:
            self.wrong.append((chat.texts(), chat.expected()))
        self._note_first_text(reloaded)

    def _note_first_text(self, reloaded: bool) -> None:
        if reloaded:  # else the mark is from the question, not from a reload
            self.first_texts += [(whole, request) for whole, request in self.page.evaluate(FIRST_TEXT)]

    def _fault(self, chat: Chat) -> bool:
        """Kills the worker that only streams, after a third of the reloads. Replaces all workers gracefully,
        after two thirds. Returns whether it did so now."""
        if chat.status != "streaming":
            return False
        if not self.faults and self.done >= self.wanted // 3:
            if chat.reader == chat.worker():
                return False  # this worker makes the answer, so another reload must come first
            os.kill(chat.reader, signal.SIGKILL)
            self.faults.append("killed")
            return True
        if len(self.faults) == 1 and self.done >= 2 * self.wanted // 3:
            self.site.server.process.send_signal(signal.SIGHUP)
            self.faults.append("replaced")
            return True
        return False
