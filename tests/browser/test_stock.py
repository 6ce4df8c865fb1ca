"""The example's page "Stock": committed sales show in all windows, also over short streams."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from .conftest import Site, Visit, open_example

#: Notes when the page sends a click and gets the answer. The answer to the first click comes late.
SLOW_FIRST_ANSWER = """() => {
  const original = fetch;
  window.posts = [];
  window.fetch = async (url, options) => {
    if (options?.method !== "POST") return original(url, options);
    const delay = posts.length ? 0 : 200;
    posts.push("asked");
    const response = await original(url, options);
    await new Promise((done) => setTimeout(done, delay));
    posts.push("answered");
    return response;
  };
}"""


def click(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def expect_pieces(page: Page, pieces: int) -> None:
    expect(page.locator("[data-article='1']")).to_have_text(str(pieces))


def test_only_committed_sales_show_in_all_windows(calm_site: Site, visit: Visit) -> None:
    seller, poller = visit(), visit(390)
    seller.expect_errors("409")  # the browser logs each answer that is an error
    ada = open_example(seller, calm_site, "/stock/", "ada")
    grace = open_example(poller, calm_site, "/stock/?mode=poll", "grace")
    expect(ada.locator("#mode")).to_have_text("one open stream")
    ada.evaluate(SLOW_FIRST_ANSWER)
    click(ada, "Sell one")
    click(ada, "Sell one, but the payment fails")
    expect(ada.get_by_role("alert")).to_contain_text("rolled back")
    assert ada.evaluate("posts") == ["asked", "answered", "asked", "answered"]
    click(ada, "Get a delivery")
    click(ada, "Sell one")
    for page in (ada, grace):
        expect(page.locator("#said .text")).to_have_text(
            ["sold one: Silk ribbon", "got a delivery: Silk ribbon", "sold one: Silk ribbon"]
        )
        expect_pieces(page, 11)
    expect(grace.locator("#mode")).to_contain_text("short streams, ")
    for _ in range(12):
        click(ada, "Sell one")
    expect(ada.get_by_role("alert")).to_contain_text("sold out")
    expect_pieces(grace, 0)
    for page in (ada, grace):
        expect(page.locator("#waiting")).to_have_text("0")
    grace.reload()
    expect_pieces(grace, 0)
    expect(grace.locator("#said .text")).to_have_count(8)
