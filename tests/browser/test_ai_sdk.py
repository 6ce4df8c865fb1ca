"""AI SDK's useChat, unchanged, on runs of this package, in a real Chromium."""

from __future__ import annotations

import os
import random
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.support.bundle import bundle
from tests.support.pages import block
from tests.support.processes import gunicorn

from .chat import Chat, ChatSite, running_chat
from .conftest import Visit
from .reloads import Reloads

#: `make reloads` reloads the page 200 times.
RELOADS = int(os.environ.get("RELOADS", "6"))


@pytest.fixture(scope="module")
def site(valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChatSite]:
    with running_chat(valkey_url, tmp_path_factory.mktemp("chat")) as site:
        yield site


def test_an_answer_streams_and_is_the_same_after_a_reload_in_the_middle(site: ChatSite, visit: Visit) -> None:
    chat = Chat(site, visit().page)
    for _ in range(2):
        chat.ask("60 words")
        chat.page.reload()
        chat.wait(lambda: chat.status == "ready" and chat.texts() == chat.expected())
    chat.page.reload()
    chat.wait(lambda: chat.status == "ready" and chat.texts() == chat.expected())


def test_stop_ends_the_answer_for_good(site: ChatSite, visit: Visit) -> None:
    chat = Chat(site, visit().page)
    chat.ask("100000 words")
    chat.page.get_by_role("button", name="Stop").click()
    chat.wait(lambda: chat.status == "ready")
    assert site.status_of_resume(chat.id) == 204
    chat.page.reload()
    chat.wait(lambda: len(chat.texts()) == 2)
    assert chat.texts()[1]
    assert chat.expected()[1].startswith(chat.texts()[1])
    chat.ask("10 words")
    chat.wait(lambda: chat.status == "ready")


def test_stop_in_another_tab_ends_the_answer_here(site: ChatSite, visit: Visit) -> None:
    visitor = visit()
    chat = Chat(site, visitor.page)
    chat.ask("100000 words")
    other = visitor.another_tab()
    other.goto(f"{site.url}/page/{chat.id}")
    other.get_by_role("button", name="Stop").click()
    chat.wait(lambda: chat.status == "ready")


def test_a_failed_answer_shows_its_text_and_an_error_without_secrets(site: ChatSite, visit: Visit) -> None:
    chat = Chat(site, visit().page)
    chat.ask("fail")
    chat.wait(lambda: chat.status == "error")
    assert chat.texts()[1].startswith("0 1 2 ")
    problem = chat.page.locator("#problem").inner_text()
    assert "RuntimeError" in problem
    assert "secret" not in chat.page.content()


def test_reasoning_tools_sources_and_data_are_parts_of_the_message(site: ChatSite, visit: Visit) -> None:
    chat = Chat(site, visit().page)
    chat.ask("tools")
    chat.wait(lambda: chat.status == "ready")
    found = chat.page.locator("#talk li").last
    assert found.locator("details").text_content() == "ThoughtsI must ask."
    assert found.locator(".text").text_content() == "It is warm."
    weather, traffic, mood = found.locator("pre").all_text_contents()
    assert '"output":{"celsius":17}' in weather
    assert '"input":{"city":"Ulm"}' in weather
    assert '"errorText":"no such city"' in traffic
    assert '{"good":true}' in mood
    assert found.locator("a").get_attribute("href") == "https://example.com/ulm"


@pytest.mark.timeout(60 * RELOADS + 300)
def test_reloads_at_any_moment_and_ends_of_workers_change_no_answer(visit: Visit, site: ChatSite) -> None:
    visitor = visit()
    visitor.expect_network_errors()
    seed = random.randrange(10**6)
    reloads = Reloads(site, visitor.page, RELOADS, random.Random(seed))
    reloads.run()
    print(f"\n{reloads.done} reloads (seed {seed}), {reloads.answers} answers, workers {reloads.faults}")
    print(f"wrong answers: {len(reloads.wrong)}")
    if len(reloads.first_texts) > 1:
        for since, times in zip(("reload", "request"), zip(*reloads.first_texts, strict=True), strict=True):
            quick, *_, slow = statistics.quantiles(times, n=10)
            spread = f"quickest tenth to {quick:.0f}, slowest tenth from {slow:.0f}"
            print(f"ms from {since} to text: median {statistics.median(times):.0f}, {spread}")
    assert reloads.wrong == []
    assert reloads.faults == ["killed", "replaced"]


#: What a page needs around the component of docs/ai.md, and an app around the server of docs/ai.md.
MOUNTED = """
import { createRoot } from "react-dom/client";
createRoot(document.querySelector("#root")).render(h(Chat, { id: "c1" }));
"""
SERVED = """
@app.get("/")
def page():
    return "<link rel=icon href=data:,><div id=root></div><script type=module src=/static/chat.js></script>"
"""


def test_the_page_of_the_documentation_works_as_it_stands(visit: Visit, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(block("docs/ai.md", "python", "def resume(chat)") + SERVED)
    script = tmp_path / "component.js"
    script.write_text(block("docs/ai.md", "js", "export function Chat") + MOUNTED)
    (tmp_path / "static").mkdir()
    bundle(script, tmp_path / "static" / "chat.js", "production")
    page = visit().page
    with gunicorn("app:app", "--chdir", str(tmp_path), log=tmp_path / "server.log") as server:
        page.goto(server.url)
        page.get_by_role("button", name="Ask").click()
        answers = page.locator("p", has_text="Each")
        expect(answers).to_contain_text("Each word")
        page.reload()
        expect(answers).to_have_text("Each word comes when the model has it.")
        page.get_by_role("button", name="Ask").click()
        expect(answers.nth(1)).to_contain_text("Each")
        page.get_by_role("button", name="Stop").click()
        expect(page.get_by_role("button", name="Stop")).to_be_disabled()
        assert "when the model has it." not in answers.nth(1).inner_text()
