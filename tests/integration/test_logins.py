"""Apps with flask-login: logging out, logging in as another user, and ids that are secret tokens."""

from __future__ import annotations

from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from flask import Flask, session
from flask.testing import FlaskClient
from flask_login import LoginManager, UserMixin, current_user, login_user, logout_user

from flask_sse_push import ConfigError, Identity, SSEBlueprint
from flask_sse_push.protocol.cursor import parse
from tests.support.deadline import eventually
from tests.support.proxy import Proxy

from .conftest import MakeApp
from .test_blueprint import Reader, listening
from .test_policy import opens, refusal
from .test_recheck import close_reason, data

#: So many seconds late may a busy worker note that the broker had reached a position.
SLOW = 5.0


class Member(UserMixin):  # type: ignore[misc]
    def __init__(self, id: str) -> None:
        self.id = id


@pytest.fixture
def club(make_app: MakeApp) -> tuple[Flask, SSEBlueprint]:
    return make_club(make_app)


def make_club(make_app: MakeApp, **settings: Any) -> tuple[Flask, SSEBlueprint]:
    app, sse = make_app(**settings)
    LoginManager(app).user_loader(Member)

    @app.get("/login/<name>")
    def sign_in(name: str) -> str:
        login_user(Member(name))
        return ""

    @app.get("/logout")
    def sign_out() -> str:
        logout_user()
        return "bye"

    return app, sse


def test_a_logout_ends_the_users_streams_and_a_browser_that_comes_back_is_refused(
    club: tuple[Flask, SSEBlueprint],
) -> None:
    app, _ = club
    ada, bob = app.test_client(), app.test_client()
    ada.get("/login/ada")
    bob.get("/login/bob")
    with (
        listening(ada, "/stream?channels=user:ada") as one,
        listening(bob, "/stream?channels=user:bob") as two,
    ):
        assert one.next()["event"] == two.next()["event"] == "sse.open"
        ada.get("/logout")
        assert close_reason(one) == ("logout", False)
        assert len(app.extensions["sse_push"][club[1]].services.streaming.hub) == 1
    assert ada.get("/stream?channels=user:ada").status_code == 401  # which ends a native EventSource


def test_a_tab_that_reconnected_before_the_logout_was_answered_is_closed_too(
    club: tuple[Flask, SSEBlueprint],
) -> None:
    app, _ = club
    client = app.test_client()
    client.get("/login/ada")
    cookie = client.get_cookie("session")
    assert cookie is not None
    logout = client.get("/logout", buffered=False)  # the server is done with it when it is closed
    other = app.test_client()
    other.set_cookie("session", cookie.value)
    with listening(other, "/stream?channels=user:ada") as reader:
        assert reader.next()["event"] == "sse.open"
        logout.close()
        assert close_reason(reader) == ("logout", False)


@pytest.mark.parametrize("path", ["/logout", "/again/ada"])
def test_a_user_who_logs_in_again_at_once_keeps_the_new_stream(
    club: tuple[Flask, SSEBlueprint], path: str
) -> None:
    app, sse = club

    @app.get("/again/<name>")
    def sign_in_again(name: str) -> str:
        logout_user()
        login_user(Member(name))
        return ""

    client = app.test_client()
    client.get("/login/ada")
    first = client.get(path, buffered=False)  # the server is done with it when it is closed
    client.get("/login/ada")
    with listening(client, "/stream?channels=user:ada") as reader, app.app_context():
        assert reader.next()["event"] == "sse.open"
        first.close()
        sse.send_to_user("ada", "welcome back")
        assert reader.next()["data"] == "welcome back"


def test_a_stream_of_a_later_login_comes_back_if_a_worker_hears_of_the_logout_late(
    club: tuple[Flask, SSEBlueprint],
) -> None:
    app, sse = club
    services, client = app.extensions["sse_push"][sse].services, app.test_client()
    client.get("/login/ada")
    arguments: dict[str, Any] = {"user_id": "ada", "channel": None, "reason": "logout"}
    with listening(client, "/stream?channels=user:ada") as before:
        assert before.next()["event"] == "sse.open"
        position = parse(services.publishing.announcer.command("revoke", **arguments))
        assert position is not None
        assert close_reason(before) == ("logout", False)
    with listening(client, "/stream?channels=user:ada") as after:
        assert after.next()["event"] == "sse.open"
        hub = services.streaming.hub
        hub.call_soon(partial(hub.disconnector.revoke, arguments, position.earlier(SLOW).id))
        assert close_reason(after) == ("recheck", True)


def test_a_stream_with_a_right_that_was_given_again_comes_back_if_a_worker_hears_of_the_revoke_late(
    club: tuple[Flask, SSEBlueprint],
) -> None:
    app, sse = club
    services, client = app.extensions["sse_push"][sse].services, app.test_client()
    client.get("/login/ada")
    arguments: dict[str, Any] = {"user_id": "ada", "channel": "user:ada", "reason": "revoked"}
    with listening(client, "/stream?channels=user:ada") as before:
        assert before.next()["event"] == "sse.open"
        position = parse(services.publishing.announcer.command("revoke", **arguments))
        assert position is not None
        assert before.next()["event"] == "sse.error"
        assert close_reason(before) == ("revoked", False)
    with (
        listening(client, "/stream?channels=user:ada") as after,
        listening(client, "/stream?channels=sse") as other,
    ):
        assert (after.next()["event"], other.next()["event"]) == ("sse.open", "sse.open")
        hub = services.streaming.hub
        hub.call_soon(partial(hub.disconnector.revoke, arguments, position.earlier(SLOW).id))
        assert close_reason(after) == ("recheck", True)
        with app.app_context():
            sse.publish("still open")
        assert other.next()["data"] == "still open"


def test_a_logout_of_nobody_does_nothing(club: tuple[Flask, SSEBlueprint]) -> None:
    app, _ = club
    assert app.test_client().get("/logout").data == b"bye"


def test_a_logout_works_without_the_broker_and_is_sent_when_it_is_back(
    make_app: MakeApp, empty_valkey: str
) -> None:
    with Proxy(urlsplit(empty_valkey).port or 0) as proxy, redis.Redis.from_url(empty_valkey) as beside:
        app, _ = make_club(
            make_app, broker_url=f"redis://127.0.0.1:{proxy.port}", prefix="club", publish_timeout=0.2
        )
        client = app.test_client()
        client.get("/login/ada")
        with listening(client, "/stream?channels=user:ada") as reader:
            assert reader.next()["event"] == "sse.open"
            proxy.requests.freeze()
            assert client.get("/logout").data == b"bye"
            assert close_reason(reader) == ("logout", False)
            assert beside.llen("{club:0}:list:!control") == 0
            proxy.cut()
            proxy.requests.thaw()
            eventually(lambda: beside.llen("{club:0}:list:!control"))


# -- logging in as another user, without a logout ------------------------------------------------------------


@pytest.fixture(params=["current_user", "the app's own function", "an Identity"])
def shared_computer(
    make_app: MakeApp, request: pytest.FixtureRequest
) -> tuple[Flask, SSEBlueprint, FlaskClient, FlaskClient]:
    """Two browsers in which ada is signed in."""
    app, sse = make_club(make_app)
    if request.param != "current_user":
        own: Any = (lambda user: user) if request.param != "an Identity" else Identity
        sse.identify(lambda request: own(current_user) if current_user.is_authenticated else None)

    @app.get("/switch/<name>")
    def switch(name: str) -> str:
        session.clear()  # against session fixation
        login_user(Member(name))
        return ""

    @app.get("/ticket")
    def ticket() -> str:
        return sse.ticket(current_user, "user:ada")

    browsers = app.test_client(), app.test_client()
    for browser in browsers:
        browser.get("/login/ada")
    return app, sse, *browsers


@pytest.mark.parametrize("path", ["/login/bob", "/switch/bob"])
def test_a_login_as_another_user_ends_the_streams_of_this_browser_only(
    shared_computer: tuple[Flask, SSEBlueprint, FlaskClient, FlaskClient], path: str
) -> None:
    app, sse, here, elsewhere = shared_computer
    with (
        listening(here, "/stream?channels=user:ada") as one,
        listening(here, "/stream?channels=sse") as two,
        listening(elsewhere, "/stream?channels=user:ada") as three,
    ):
        for reader in (one, two, three):
            assert reader.next()["event"] == "sse.open"
        here.get(path)
        assert close_reason(one) == close_reason(two) == ("logout", False)
        with listening(here, "/stream?channels=user:bob") as four, app.app_context():
            assert four.next()["event"] == "sse.open"
            sse.send_to_user("bob", "hello")
            sse.send_to_user("ada", "still here")
            assert four.next()["data"] == "hello"
            assert three.next()["data"] == "still here"


def test_a_tab_that_connected_before_the_new_login_was_answered_is_closed_too(
    shared_computer: tuple[Flask, SSEBlueprint, FlaskClient, FlaskClient],
) -> None:
    app, _, here, elsewhere = shared_computer
    cookie = here.get_cookie("session")
    assert cookie is not None
    old_tab = app.test_client()
    old_tab.set_cookie("session", cookie.value)
    login = here.get("/login/bob", buffered=False)  # the server is done with it when it is closed
    with (
        listening(elsewhere, "/stream?channels=sse"),
        listening(old_tab, "/stream?channels=user:ada") as reader,
    ):
        assert reader.next()["event"] == "sse.open"
        login.close()
        assert close_reason(reader) == ("logout", False)


def test_a_login_as_another_user_ends_the_unused_tickets_of_the_session(
    shared_computer: tuple[Flask, SSEBlueprint, FlaskClient, FlaskClient],
) -> None:
    _, _, here, elsewhere = shared_computer
    ended, valid = here.get("/ticket").text, elsewhere.get("/ticket").text
    here.get("/login/bob")
    assert refusal(elsewhere.get(f"/stream?ticket={ended}")) == (401, 1102)
    assert opens(here, f"/stream?ticket={valid}") == ["user:ada"]


def test_a_login_as_the_same_user_ends_nothing(
    shared_computer: tuple[Flask, SSEBlueprint, FlaskClient, FlaskClient],
) -> None:
    app, sse, here, _ = shared_computer
    with listening(here, "/stream?channels=user:ada") as reader, app.app_context():
        assert reader.next()["event"] == "sse.open"
        here.get("/login/ada")
        here.get("/switch/ada")
        sse.send_to_user("ada", "still here")
        assert reader.next()["data"] == "still here"


def test_a_user_known_by_a_remember_cookie_is_in_the_session_too(make_app: MakeApp) -> None:
    app, _ = make_club(make_app)

    @app.get("/remember/<name>")
    def remember(name: str) -> str:
        login_user(Member(name), remember=True)
        return ""

    browser = app.test_client()
    browser.get("/remember/ada")
    browser.delete_cookie("session")  # the browser was closed
    assert opens(browser, "/stream?channels=user:ada") == ["user:ada"]
    with listening(browser, "/stream?channels=user:ada") as reader:
        assert reader.next()["event"] == "sse.open"
        browser.get("/login/bob")
        assert close_reason(reader) == ("logout", False)


# -- ids that are secret tokens ------------------------------------------------------------------------------


class Holder(UserMixin):  # type: ignore[misc]
    """A user whom flask-login knows by a token, which changes with the password."""

    def __init__(self, id: int, token: str) -> None:
        self.id = id
        self.token = token

    def get_id(self) -> str:
        return self.token


def make_vault(make_app: MakeApp, user: Any) -> tuple[Flask, SSEBlueprint]:
    app, sse = make_app(presence_channels="lobby", presence_grace=0.1, recheck=0.2)
    users = {user.get_id(): user}
    LoginManager(app).user_loader(users.get)
    sse.authorize(lambda user, channel: user is not None)

    @app.get("/login")
    def sign_in() -> str:
        login_user(user)
        return ""

    @app.get("/logout")
    def sign_out() -> str:
        logout_user()
        return ""

    @app.get("/ticket")
    def ticket() -> str:
        return sse.ticket(current_user, ["lobby", "user:7"])

    return app, sse


class Keeper(UserMixin):  # type: ignore[misc]
    """A user without an attribute `id`."""

    number = 7

    def get_id(self) -> str:
        return "token"


def without_presence(reader: Reader) -> dict[str, str]:
    """Returns the next event that tells nothing about the presence of users."""
    event = reader.next()
    assert "token" not in event["data"]
    return without_presence(reader) if event.get("event") == "sse.presence" else event


@pytest.mark.parametrize("kind", ["attribute", "function"])
def test_nobody_sees_the_token_of_a_user_and_the_id_of_the_app_works_everywhere(
    make_app: MakeApp, kind: str
) -> None:
    user = Holder(7, "token") if kind == "attribute" else Keeper()
    app, sse = make_vault(make_app, user)
    if kind == "function":
        sse.user_id(lambda user: user.number)
    browser = app.test_client()
    browser.get("/login")
    for path in ("/stream?channels=lobby,user:7", "/stream?ticket="):
        with_ticket = path.endswith("=")
        client = app.test_client() if with_ticket else browser
        ticket = browser.get("/ticket").text if with_ticket else ""
        with app.app_context(), listening(client, path + ticket) as reader:
            opened = reader.next()
            assert opened["event"] == "sse.open"
            assert "token" not in opened["data"]
            eventually(lambda: sse.presence("lobby")["users"] == ["7"])
            assert {one["user_id"] for one in sse.connections()} == {"7"}
            sse.send_to_user(7, "hello")
            assert without_presence(reader)["data"] == "hello"
            sse.revoke(7, "lobby")
            assert data(without_presence(reader))["details"] == {"channel": "lobby"}
            sse.send_to_user(7, "still here")
            assert without_presence(reader)["data"] == "still here"
        with app.app_context():
            eventually(lambda: sse.presence("lobby")["count"] == 0)
    with listening(browser, "/stream?channels=user:7") as reader:
        assert reader.next()["event"] == "sse.open"
        browser.get("/logout")
        assert close_reason(reader) == ("logout", False)


def test_an_app_without_a_secret_key_has_no_valid_ticket(make_app: MakeApp) -> None:
    app, sse = make_app(public_channels="*")
    app.secret_key = None
    response = app.test_client().get("/stream?channels=a&ticket=x")
    assert (response.status_code, response.get_json()["code"]) == (401, 1102)
    with app.test_request_context(), pytest.raises(ConfigError, match=r"^SECRET_KEY is None, but must be"):
        sse.ticket(None, "a")
