"""Runs the chat app on two workers, and the page with AI SDK's useChat."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Page, Response

from tests.apps.words import words
from tests.support.bundle import bundle
from tests.support.processes import ROOT, Gunicorn, gunicorn

from .conftest import eventually_on, prefixes

_chats = itertools.count()


class ChatSite:
    """The chat app and its server."""

    def __init__(self, server: Gunicorn) -> None:
        self.server = server
        self.url = server.url

    def status_of_resume(self, chat: str) -> int:
        """Returns the HTTP status of a request to resume the chat."""
        return httpx.get(f"{self.url}/api/chat/{chat}/stream", timeout=60, trust_env=False).status_code


@contextlib.contextmanager
def running_chat(
    broker_url: str, folder: Path, app: str = "tests.apps.chat:app", **env: str
) -> Iterator[ChatSite]:
    """Runs the chat app on two workers until the block ends.

    Each request opens a connection, so any worker may get it.
    """
    env = {"SSE_PUSH_BROKER_URL": broker_url, "SSE_PUSH_PREFIX": f"chat{next(prefixes)}", **env}
    env["CHAT_SCRIPT"] = str(
        bundle(ROOT / "example_app/assistant/use-chat.js", folder / "chat.js", "production")
    )
    with gunicorn(app, "--keep-alive", "0", env=env, workers=2, log=folder / "server.log") as server:
        yield ChatSite(server)


class Chat:
    """A chat on a page.

    `questions` are what the page has asked, `reader` is the pid of the worker that streams.
    """

    def __init__(self, site: ChatSite, page: Page) -> None:
        self.site, self.page = site, page
        self.id = f"chat{next(_chats)}"
        self.questions: list[str] = []
        self.reader = 0
        page.on("response", self._note)
        page.goto(f"{site.url}/page/{self.id}")

    def _note(self, response: Response) -> None:
        if response.status == 200 and response.url.rpartition("/")[2] in ("chat", "stream"):
            self.reader = int(response.headers["x-worker"])

    def ask(self, question: str) -> None:
        self.page.get_by_label("Question").fill(question)
        self.page.keyboard.press("Enter")
        self.questions.append(question)
        count = 2 * len(self.questions)
        self.wait(lambda: len(self.texts()) == count and bool(self.texts()[-1]))

    def wait(self, condition: Any) -> None:
        eventually_on(self.page, condition)

    def texts(self) -> list[str]:
        """Returns the text of each message on the page, to the character."""
        script = "[...document.querySelectorAll('#talk li')].map((li) => li.textContent)"
        return list(self.page.evaluate(script))

    @property
    def status(self) -> str:
        return str(self.page.evaluate("document.querySelector('#ask')?.dataset.status"))

    def expected(self) -> list[str]:
        """Returns what `texts` must be in the end, for questions such as `30 words`."""
        answers = ["".join(words(int(question.split()[0]))) for question in self.questions]
        return [text for pair in zip(self.questions, answers, strict=True) for text in pair]

    def worker(self) -> int:
        """Returns the pid of the worker that makes the answer."""
        return int(self._about()["pid"])

    def goes_on(self) -> bool:
        """Whether the answer goes on, says the server."""
        return bool(self._about()["goes_on"])

    def _about(self) -> Any:
        return httpx.get(f"{self.site.url}/about/{self.id}", timeout=60, trust_env=False).json()

    def close(self) -> None:
        self.page.remove_listener("response", self._note)
