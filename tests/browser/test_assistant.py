"""The example's page "AI chat": an answer continues after a reload and in all windows, until the user stops
it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from example_app.assistant.model import ANSWER
from tests.support.bundle import bundle
from tests.support.processes import ROOT

from .conftest import Site, Visit, open_example


@pytest.fixture(scope="module", autouse=True)
def use_chat_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Bundles the module of the second page, and tells the servers of this file where it is."""
    with pytest.MonkeyPatch.context() as patch:
        file = tmp_path_factory.mktemp("bundle") / "use-chat.js"
        bundle(ROOT / "example_app/assistant/use-chat.js", file, "production")
        patch.setenv("EXAMPLE_USE_CHAT", str(file))
        yield


def ask(page: Page, question: str) -> None:
    page.get_by_label("Question").fill(question)
    page.keyboard.press("Enter")


def answer_to(question: str) -> str:
    return ANSWER.format(question=question).strip()


def open_chat(site: Site, visit: Visit, name: str, width: int = 1280, height: int = 860) -> Page:
    return open_example(visit(width, height), site, "/assistant/", name)


def test_an_answer_continues_after_a_reload_and_is_complete_in_all_windows(site: Site, visit: Visit) -> None:
    page = open_chat(site, visit, "ada")
    ask(page, "What is <b>SSE</b>?")
    answers = page.locator("#talk li[data-by=answer]")
    expect(answers).to_contain_text("You asked: “What is <b>SSE</b>?”")
    expect(answers).to_have_attribute("data-status", "running")
    page.reload()
    expect(answers).to_contain_text("You asked: “What is <b>SSE</b>?”")
    expect(answers).to_have_attribute("data-status", re.compile("running|done"))  # done on a slow machine
    other = open_chat(site, visit, "ada")
    for window in (page, other):
        expect(window.locator("#talk li[data-by=answer]")).to_have_attribute("data-status", "done")
        expect(window.locator("#talk li")).to_have_text(
            ["What is <b>SSE</b>?", answer_to("What is <b>SSE</b>?")]
        )
    assert page.locator("#talk b").count() == 0


def test_an_answer_stops_in_whichever_worker_it_runs(site: Site, visit: Visit) -> None:
    page = open_chat(site, visit, "ada")
    long = "Go on " + "and on " * 60  # long, so that it is still running when a slow machine stops it
    ask(page, long)
    answers = page.locator("#talk li[data-by=answer]")
    expect(answers).to_contain_text("one answer")
    expect(page.get_by_role("button", name="Ask")).to_be_disabled()
    page.reload()
    page.get_by_role("button", name="Stop").click()
    expect(answers).to_have_attribute("data-status", "stopped")
    expect(answers).to_contain_text("Stopped.")
    ask(page, "And now?")
    expect(page.locator("#talk li[data-by=question]")).to_have_text([long.strip(), "And now?"])
    expect(answers.nth(1)).to_contain_text("You asked: “And now?”")
    page.get_by_role("button", name="Stop").click()
    expect(answers.nth(1)).to_have_attribute("data-status", "stopped")


def test_nobody_else_may_listen_or_talk(calm_site: Site, visit: Visit) -> None:
    stranger = visit()
    refused = stranger.page.request.get(f"{calm_site.url}/stream?channels=run:ada")
    assert refused.status in (401, 403)
    assert "/signin" in stranger.page.request.get(f"{calm_site.url}/assistant/").url
    grace = open_chat(calm_site, visit, "grace")
    assert grace.request.get(f"{calm_site.url}/stream?channels=run:ada").status == 403


@pytest.mark.parametrize(("name", "width", "height"), [("phone", 390, 844), ("desktop", 1280, 860)])
def test_the_page_fits(
    calm_site: Site, visit: Visit, tmp_path: Path, name: str, width: int, height: int
) -> None:
    page = open_chat(calm_site, visit, "grace", width, height)
    ask(page, "long" * 60)
    expect(page.locator("#talk li[data-by=answer]").last).to_contain_text("Each of these words")
    page.screenshot(path=tmp_path / f"{name}.png", full_page=True, animations="disabled")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#talk li[data-by=answer]").last).to_have_attribute("data-status", "stopped")


# -- the second page, with AI SDK's useChat ------------------------------------------------------------------


def test_use_chat_goes_on_after_a_reload_and_keeps_what_was_said_before_stop(
    calm_site: Site, visit: Visit
) -> None:
    page = visit().sign_in(calm_site.url, "ada")
    page.goto(f"{calm_site.url}/assistant/use-chat")
    ask(page, "What is <b>SSE</b>?")
    answer, status = page.locator("#talk li[data-by=answer]"), page.locator("#ask")
    expect(answer.locator(".text")).to_contain_text("You asked: “What is <b>SSE</b>?”")
    expect(answer.locator("details")).to_contain_text("I have one answer")
    page.reload()
    expect(answer.locator(".text")).to_contain_text("It explains how")
    page.get_by_role("button", name="Stop").click()
    expect(status).to_have_attribute("data-status", "ready")
    page.reload()
    expect(answer.locator(".text")).to_contain_text("It explains how")
    assert answer_to("What is <b>SSE</b>?").startswith(answer.locator(".text").text_content() or "-")
    ask(page, "And now?")
    expect(answer.nth(1).locator(".text")).to_contain_text("You asked: “And now?”")
    page.get_by_role("button", name="Stop").click()
    expect(status).to_have_attribute("data-status", "ready")
    assert page.locator("#talk b").count() == 0


def test_use_chat_shows_nobody_the_chat_of_another_user(calm_site: Site, visit: Visit) -> None:
    visitor = visit()
    grace = visitor.sign_in(calm_site.url, "grace").request
    for address in ("chat/ada/stream", "chat/ada"):
        assert grace.get(f"{calm_site.url}/assistant/{address}").status == 404
    assert grace.post(f"{calm_site.url}/assistant/chat/ada/stop").status == 404
