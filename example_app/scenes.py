"""Prepares the screenshots: one user waits in a room, and the other does something on each page.

The demo has published letters, notifications and more before (seeds.py).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

from playwright.sync_api import Locator, Page, expect

LETTER = "I will bring the biscuits."
#: Each visit of the page takes the next one.
TROUBLES = itertools.cycle(
    (("error", "The backup of tonight failed."), ("critical", "The certificate ends tomorrow."))
)
SAID = "Is anybody coming down?"


def open_page(page: Page, url: str, name: str) -> None:
    """Opens a page and waits until its stream is open."""
    page.goto(f"{url}/{name}/")
    expect(page.locator("#state")).to_have_attribute("data-state", "open")


def prepare(grace: Page, url: str) -> None:
    """Lets Grace say something in a room, and stay there."""
    open_page(grace, url, "rooms")
    enter(grace, "garden")
    say(grace, "garden", SAID)


def notify(page: Page, user: str, level: str, text: str) -> None:
    """Sends a notification."""
    page.locator("[name=to]").select_option(user)
    page.get_by_label("Level").select_option(level)
    submit(page.get_by_label("Text"), text)
    expect(page.get_by_label("Text")).to_have_value("")


def submit(field: Locator, text: str) -> None:
    """Fills in a field and sends its form."""
    field.fill(text)
    field.page.keyboard.press("Enter")


def enter(page: Page, room: str) -> None:
    """Goes into a room."""
    card = page.locator(f"[data-room={room}]")
    card.get_by_role("button", name="Enter").click()
    expect(card.get_by_role("button", name="Leave")).to_be_visible()


def say(page: Page, room: str, text: str) -> None:
    """Says something in a room that the page is in."""
    card = page.locator(f"[data-room={room}]")
    submit(card.get_by_role("textbox"), text)
    expect(card.locator(".text").last).to_have_text(text)


# -- one function per page ----------------------------------------------------------------------------------


def chat_with_a_model(page: Page) -> None:
    """Asks a question, and waits for most of the answer."""
    if page.locator("#talk li").count() == 0:
        submit(page.get_by_label("Question"), "How do your words get to me?")
    expect(page.locator("#talk li[data-by=answer]")).to_contain_text("put together ten times")


def publish_news(page: Page) -> None:
    """Publishes three events to different channels."""
    for channel, text in (
        ("news", "The loom weaves algebraic patterns."),
        ("chat", "Who is coming to tea?"),
        ("user:ada", "Note G is finished."),
    ):
        page.get_by_label("To").select_option(channel)
        submit(page.get_by_label("Text"), text)
        expect(page.locator("#feed .text").filter(has_text=text).first).to_be_visible()


def publish_activity(page: Page) -> None:
    """Publishes an event of each kind."""
    for kind, text in (
        ("comment", "The plan looks good."),
        ("deploy", "Version 2 is live."),
        ("alert", "The queue is long."),
    ):
        page.locator("[name=kind]").select_option(kind)
        submit(page.get_by_label("What happened"), text)
        expect(page.get_by_label("What happened")).to_have_value("")


def follow_an_order(page: Page) -> None:
    """Places an order, after the end of the one before, and waits until it is half done."""
    place = page.get_by_role("button", name="Place an order")
    expect(place).to_be_enabled()
    place.click()
    expect(page.locator("#progress-title")).to_have_text("Shipped")


def move_a_card(page: Page) -> None:
    """Adds a card, unless an earlier visit has added it, and moves it."""
    text = "Draw the flowers for the loom"
    if not page.locator("#board .text").filter(has_text=text).count():
        submit(page.get_by_label("New card"), text)
        page.get_by_role("button", name=f"Move “{text}” to Doing").click()
    expect(page.get_by_role("button", name=f"Move “{text}” to Done")).to_be_visible()


def sell_a_ribbon(page: Page) -> None:
    """Fills the shelf, sells one piece, and lets the payment of another one fail."""
    for button in ("Get a delivery", "Sell one", "Sell one, but the payment fails"):
        page.get_by_role("button", name=button, exact=True).click()
    expect(page.locator("#problem")).to_contain_text("rolled back")
    expect(page.locator("[data-article]").first).to_have_text("11")


def start_the_timer(page: Page) -> None:
    """Starts the timer for five minutes, unless it is running."""
    start = page.get_by_role("button", name="Start")
    if start.is_enabled():
        page.get_by_label("Length").select_option("300")
        start.click()
    expect(page.locator("#says")).to_have_text("Started by Ada")


def enter_rooms(page: Page) -> None:
    """Enters the garden, where Grace is, and the library. On later visits, the page re-enters both by
    itself."""
    if not page.evaluate("sessionStorage.getItem('rooms')"):
        enter(page, "garden")
        say(page, "garden", "I am on the stairs already.")
        enter(page, "library")
    garden = page.locator("[data-room=garden]")
    expect(garden.locator(".text").filter(has_text=SAID)).to_be_visible()
    expect(garden.locator(".present")).to_have_text("you, Grace")
    expect(page.locator("[data-room=library] .present")).to_have_text("you")


def read_the_letters(page: Page) -> None:
    """Answers the letters that the demo begins with. Nobody has read the answer yet."""
    if not page.locator("#letters .text").filter(has_text=LETTER).count():
        submit(page.get_by_label("Message"), LETTER)
    expect(page.locator("#letters .mark").last).to_have_text("Sent")


def be_notified(page: Page) -> None:
    """Sends one more notification, which also appears in the corner."""
    level, text = next(TROUBLES)
    notify(page, "ada", level, text)
    expect(page.locator("#inbox .notice").first).to_contain_text(text)


def write_a_log(page: Page) -> None:
    """Writes lines of three levels."""
    for level, text in (
        ("DEBUG", "looking at cards"),
        ("WARNING", "a card is bent"),
        ("ERROR", "out of cards"),
    ):
        page.locator("#write [name=level]").select_option(level)
        submit(page.get_by_label("Text"), text)
        expect(page.locator("#lines li").filter(has_text=text).last).to_be_visible()


def watch_the_charts(page: Page) -> None:
    """Waits until the charts have a sample."""
    expect(page.locator("#samples")).not_to_have_text("0")


def send_a_test_event(page: Page) -> None:
    """Sends a test event, and waits for the table of streams."""
    page.get_by_role("button", name="Send a test event").click()
    expect(page.locator("#last-type")).to_have_text("test")
    expect(page.locator("#streams tr").nth(1)).to_be_visible()


def find_out_why(page: Page, url: str) -> None:
    """Asks the package's admin page why Grace, who listens to rooms only, gets no news."""
    page.goto(f"{url}/stream/admin#/?user=grace&channel=news")
    expect(page.locator("#view .notice")).to_contain_text("grace")


SCENES: dict[str, Callable[[Page], None]] = {
    "live": publish_news,
    "assistant": chat_with_a_model,
    "orders": follow_an_order,
    "board": move_a_card,
    "stock": sell_a_ribbon,
    "timer": start_the_timer,
    "activity": publish_activity,
    "rooms": enter_rooms,
    "messages": read_the_letters,
    "notifications": be_notified,
    "dashboard": watch_the_charts,
    "logs": write_a_log,
    "debug": send_a_test_event,
}
