"""The example app: signing in, errors for browsers and for scripts, the words of its pages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html.parser import HTMLParser

import pytest
from flask import Flask
from flask.testing import FlaskClient

from example_app import PAGES, create_app, seeds
from example_app.signin import DEMO_PASSWORDS
from example_app.start import ABOUT, tour
from flask_sse_push import sse
from flask_sse_push.testing import published

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture(scope="module")
def app() -> Iterator[Flask]:
    app = create_app({"SSE_PUSH_BROKER_URL": "memory://", "TESTING": True})
    yield app
    with app.app_context():
        sse.services.close()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def sign_in(client: FlaskClient, name: str, wanted: str = "") -> str:
    """Signs in, and returns where the app redirects to."""
    form = {"name": name, "password": DEMO_PASSWORDS[name], "next": wanted}
    return client.post("/signin", data=form).headers["Location"]


class Page(HTMLParser):
    """The forms, links and texts of a page, and the elements that a screen reader could not name."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.forms: list[dict[str, str]] = []
        self.links: list[str] = []
        self.files: list[str] = []  # scripts, styles and pictures
        self.labels = 0
        self.unnamed: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.forms.append({"action": given.get("action", "")})
        if tag == "a":
            self.links.append(given["href"])
        if tag in ("script", "link", "img"):
            self.files.append(given.get("src") or given["href"])
        self.labels += tag == "label"
        if tag == "input" and given.get("type") == "hidden":
            self.forms[-1][given["name"]] = given.get("value", "")
        elif tag in ("input", "select", "textarea") and not self.labels and "aria-label" not in given:
            self.unnamed.append(str(given))
        if given.get("tabindex") == "0" and not {"aria-label", "aria-labelledby"} & given.keys():
            self.unnamed.append(str(given))

    def handle_endtag(self, tag: str) -> None:
        self.labels -= tag == "label"


# -- signing in ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [page.name for page in PAGES.values()])
def test_one_click_signs_in_and_returns_to_the_page(client: FlaskClient, name: str) -> None:
    asked = client.get(f"/{name}/", headers=BROWSER, follow_redirects=True)
    if asked.request.path == f"/{name}/":  # a public page
        forms = [form for form in Page(asked.text).forms if form.get("name") == "ada"]
        assert [form["next"] for form in forms] == ([""] if name == "start" else [f"/{name}/"])
    else:
        (form,) = [form for form in Page(asked.text).forms if form.get("name") == "ada"]
        assert client.post(form.pop("action"), data=form).headers["Location"] == f"/{name}/"
        assert client.get(f"/{name}/", headers=BROWSER).status_code == 200


def test_a_page_loads_its_files_although_its_user_signs_out_meanwhile(client: FlaskClient) -> None:
    sign_in(client, "ada")
    files = {file for page in PAGES.values() for file in Page(client.get(f"/{page.name}/").text).files}
    assert len(files) > len(PAGES)
    client.post("/signout")
    for file in files:
        with client.get(file) as answer:
            assert answer.status_code == 200, file


@pytest.mark.parametrize("name", ["logs", "debug"])
def test_a_sign_in_does_not_end_on_a_page_that_the_user_may_not_see(client: FlaskClient, name: str) -> None:
    form = client.get(f"/{name}/", follow_redirects=True).text
    assert [form["name"] for form in Page(form).forms if "name" in form] == ["ada"]
    assert sign_in(client, "grace", f"/{name}/") == "/"
    assert "You are signed in as Grace" in client.get("/", follow_redirects=True).text


@pytest.mark.parametrize(
    "wanted",
    [
        "https://evil.example/",
        "//evil.example/live/",
        "/\\evil.example/live/",
        "/\t/evil.example/",
        "javascript:alert(1)",
        "/signout",
        "/signin",
        "/whoami",
        "/stream",
        "/nowhere/",
        "http://[",
        "/live/%0d%0aSet-Cookie:x",
        "\x00",
    ],
)
def test_a_sign_in_leads_only_to_pages_of_this_app(client: FlaskClient, wanted: str) -> None:
    assert sign_in(client, "ada", wanted) == "/"
    assert client.get("/signin", query_string={"next": wanted}).headers["Location"] == "/"


def test_a_wrong_password_keeps_the_page_that_the_user_wanted(client: FlaskClient) -> None:
    form = {"name": "ada", "password": "wrong", "next": "/rooms/"}
    answer = client.post("/signin", data=form, follow_redirects=True)
    assert "do not go together" in answer.text
    assert {form["next"] for form in Page(answer.text).forms} == {"/rooms/"}


def test_a_user_may_change_to_another(client: FlaskClient) -> None:
    sign_in(client, "grace")
    assert sign_in(client, "ada", "/debug/") == "/debug/"
    assert client.get("/whoami").json == {"user": "ada"}


# -- errors -------------------------------------------------------------------------------------------------


def test_a_browser_gets_a_page_and_a_script_gets_json(client: FlaskClient) -> None:
    sign_in(client, "grace")
    for path, status in (
        ("/debug/", 403),
        ("/debug/connections", 403),
        ("/nowhere", 404),
        ("/live/publish", 405),
    ):
        page = client.get(path, headers=BROWSER)
        assert (page.status_code, page.mimetype) == (status, "text/html"), path
        assert "/" in Page(page.text).links
        script = client.get(path, headers={"Accept": "*/*"})
        assert (script.status_code, bool(script.get_json()["error"])) == (status, True), path


def test_the_page_of_a_403_offers_a_user_who_may_see_it(client: FlaskClient) -> None:
    sign_in(client, "grace")
    page = client.get("/debug/", headers=BROWSER)
    assert "You are signed in as Grace, and this is for admins." in page.text
    (form,) = [form for form in Page(page.text).forms if form.get("name")]
    assert client.post(form.pop("action"), data=form).headers["Location"] == "/debug/"


def test_an_address_in_an_error_page_is_text(client: FlaskClient) -> None:
    assert "<script>alert" not in client.get("/<script>alert(1)</script>", headers=BROWSER).text


# -- the words ----------------------------------------------------------------------------------------------


def test_everything_that_takes_the_focus_has_a_name(client: FlaskClient) -> None:
    for path in ("/signin", "/start/", "/live/"):
        assert Page(client.get(path, follow_redirects=True).text).unnamed == [], path
    sign_in(client, "ada")
    for page in PAGES.values():
        assert Page(client.get(f"/{page.name}/").text).unnamed == [], page.name


def test_the_start_page_leads_to_every_page(client: FlaskClient) -> None:
    sign_in(client, "ada")
    links = Page(client.get("/start/").text).links
    assert [name for name in ABOUT if links.count(f"/{name}/") != 2] == []  # the navigation and the tile
    assert set(ABOUT) == {page.name for page in PAGES.values()} - {"start"}


def test_every_page_shows_its_own_code(client: FlaskClient) -> None:
    sign_in(client, "ada")
    for page in PAGES.values():
        text = client.get(f"/{page.name}/").text
        assert f"{page.name}/__init__.py" in text, page.name
        shown = (
            "sse-connect=" if page.name == "board" else "await openStream("
        )  # the board shows its template
        assert shown in text, page.name


def test_the_pictures_of_the_tour_are_complete_small_and_begin_again() -> None:
    pictures = [tour.picture(number) for number in range(200)]
    for picture in pictures:
        assert set(picture) == set(ABOUT) - {"live", "debug"}
        assert len(json.dumps(picture)) < 2000
        assert 0 <= min(picture["dashboard"]) <= max(picture["dashboard"]) <= 100
    for name in set(ABOUT) - {"live", "debug"}:
        assert len({json.dumps(picture[name]) for picture in pictures}) > 3, name
    assert {picture["orders"]["step"] for picture in pictures} == set(tour.STEPS)


def test_the_demo_begins_with_the_same_events_however_often_it_starts(app: Flask) -> None:
    for _ in range(2):
        with app.app_context():
            seeds.publish(sse.announcer)
        posts = len(published(app, "news")) + len(published(app, "chat"))
        assert posts == len(seeds.POSTS)
        types = [event.type for event in published(app, "user:ada")]
        assert types.count("letter") == types.count("delivered") == len(seeds.LETTERS)
        assert types.count("notice") == len([user for _, user, *_ in seeds.NOTICES if user == "ada"])
        for room in ("garden", "library", "workshop"):
            assert published(app, f"room:{room}"), room
        for kind in ("comment", "deploy", "alert"):
            assert published(app, f"activity:{kind}"), kind


def test_a_scraper_with_the_password_of_the_environment_reads_metrics(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def status(password: str) -> int:
        return client.get("/stream/metrics", auth=("prometheus", password)).status_code

    assert status("secret") == 401
    monkeypatch.setenv("EXAMPLE_SCRAPE_PASSWORD", "secret")
    assert client.get("/stream/metrics").status_code == 401
    assert status("other") == 401
    answer = client.get("/stream/metrics", auth=("prometheus", "secret"))
    assert answer.status_code == 200
    assert "sse_push_socket_latency_seconds" in answer.text
    assert "sse_push_browser_latency_seconds" in answer.text


def test_every_page_with_a_stream_may_report(client: FlaskClient) -> None:
    client.get("/")
    page = client.get("/live/", follow_redirects=True).text
    assert 'data-report="/stream/report"' in page
    assert client.post("/stream/report", json={"opened": 1, "latency": [3]}).status_code == 204
