"""Open streams whose rights end: by a command, by the rules, by time, by a logout."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from flask import Flask, current_app
from flask_login import LoginManager, UserMixin, login_user, logout_user

from flask_sse_push import Identity, SSEBlueprint
from tests.support.deadline import eventually, stretched
from tests.support.proxy import Proxy

from .conftest import MakeApp
from .test_blueprint import Reader, listening

#: Seconds between two looks at a stream.
RECHECK = 0.2


class House:
    """An app whose rules a test can change. `?as=` says who asks."""

    def __init__(self, make_app: MakeApp, **settings: Any) -> None:
        self.app, self.sse = make_app(**{"recheck": RECHECK, **settings})
        self.rooms = {"ada": {"red", "blue"}, "bob": {"red"}}
        self.asked = 0
        self.broken = False
        self.lives: float | None = None
        self.expires = 0.0  # when the identity told last does
        self.sse.identify(lambda request: self.identity(request.args.get("as")))
        self.sse.authorize(self.allowed)

    def identity(self, name: str | None) -> Identity | None:
        if name is None:
            return None
        expires = None if self.lives is None else time.time() + self.lives
        self.expires = expires or 0.0
        return Identity(name, expires=expires, renew=lambda: name if name in self.rooms else None)

    def allowed(self, user: str | None, channel: str) -> bool:
        assert current_app
        self.asked += 1
        if self.broken:
            raise RuntimeError("the database is away")
        return channel in self.rooms.get(user or "", ())

    @contextlib.contextmanager
    def stream(self, channels: str, user: str | None = "ada") -> Iterator[Reader]:
        path = f"/stream?channels={channels}" + (f"&as={user}" if user else "")
        with listening(self.app.test_client(), path) as reader:
            opened = reader.next()
            assert opened["event"] == "sse.open"
            self.opened = json.loads(opened["data"])
            yield reader

    def ask_to_join(self, channel: str, user: str | None = "ada") -> None:
        """As the client of the stream opened last."""
        path = f"/stream/{self.opened['connection']}/channels" + (f"?as={user}" if user else "")
        wanted = {"join": [channel], "secret": self.opened["secret"]}
        answer = self.app.test_client().post(path, json=wanted)
        assert answer.status_code == 202, answer.json

    def publish(self, text: str, channel: str) -> None:
        with self.app.app_context():
            self.sse.publish(text, channel=channel)

    def revoke(self, *arguments: Any) -> None:
        with self.app.app_context():
            self.sse.revoke(*arguments)


@pytest.fixture
def house(make_app: MakeApp) -> House:
    return House(make_app)


def data(event: dict[str, str]) -> Any:
    return json.loads(event["data"])


def farewell(reader: Reader) -> tuple[str, bool]:
    """The reason of the stream's end, which must be the next thing that comes, and whether to come back."""
    event = reader.next()
    assert event["event"] == "sse.close", event
    with pytest.raises(StopIteration):
        reader.next()
    return data(event)["reason"], data(event)["reconnect"]


def lost_channel(reader: Reader) -> str:
    event = reader.next()
    assert event["event"] == "sse.error", event
    error = data(event)
    assert (error["code"], error["name"], error["retry"]) == (1201, "PERMISSION_DENIED", False)
    return str(error["details"]["channel"])


# -- commands -----------------------------------------------------------------------------------------------


def test_revoking_a_channel_leaves_the_others(house: House) -> None:
    with house.stream("red,blue") as ada, house.stream("red", "bob") as bob:
        house.publish("before", "red")
        house.revoke("ada", "red")
        house.publish("for bob", "red")
        house.publish("for ada", "blue")
        assert ada.next()["data"] == "before"
        assert lost_channel(ada) == "red"
        assert ada.next()["data"] == "for ada"
        assert [bob.next()["data"], bob.next()["data"]] == ["before", "for bob"]


def unpacked(reader: Reader, count: int) -> list[str]:
    """The data of the next so many events, which come in batches."""
    found: list[str] = []
    while len(found) < count:
        event = reader.next()
        assert event["event"] == "sse.batch", event
        found += [one["data"] for one in data(event)]
    return found


@pytest.mark.parametrize("company", [False, True], ids=["alone", "with streams that have what is left"])
def test_what_waits_in_a_batch_comes_before_its_channel_is_revoked(house: House, company: bool) -> None:
    house.rooms["eve"] = {"red", "blue"}
    with contextlib.ExitStack() as streams:
        ada = streams.enter_context(house.stream("red,blue&batch=250"))
        eve = streams.enter_context(house.stream("red,blue&batch=250", "eve"))
        others = [streams.enter_context(house.stream("blue&batch=250", "eve"))] if company else []
        house.publish("1", "red")
        house.publish("2", "blue")
        house.revoke("ada", "red")
        house.publish("3", "red")
        house.publish("4", "blue")
        assert unpacked(ada, 2) == ["1", "2"]
        assert lost_channel(ada) == "red"
        assert unpacked(ada, 1) == ["4"]
        assert unpacked(eve, 4) == ["1", "2", "3", "4"]
        for reader in others:
            assert unpacked(reader, 2) == ["2", "4"]
        house.publish("5", "blue")
        for reader in (ada, eve, *others):
            assert unpacked(reader, 1) == ["5"]


def test_revoking_the_last_channel_ends_the_stream_for_good(house: House) -> None:
    with house.stream("red") as ada:
        house.revoke("ada", "red")
        house.publish("secret", "red")
        assert lost_channel(ada) == "red"
        assert farewell(ada) == ("revoked", False)


def test_revoking_a_user_ends_all_their_streams_and_no_others(house: House) -> None:
    with house.stream("red") as one, house.stream("blue,sse") as two, house.stream("red", "bob") as bob:
        house.revoke("ada")
        house.publish("after", "red")
        assert farewell(one) == farewell(two) == ("revoked", False)
        assert bob.next()["data"] == "after"


def test_a_channel_that_is_left_is_no_longer_followed_when_nobody_else_has_it(make_app: MakeApp) -> None:
    house = House(make_app, linger=0)
    with house.stream("red,blue") as ada, house.app.app_context():
        before = house.sse.stats()["channels"]
        house.revoke("ada", "red")
        assert lost_channel(ada) == "red"
        eventually(lambda: house.sse.stats()["channels"] == before - 1)


def test_a_command_that_comes_while_the_stream_is_being_made_still_counts(house: House) -> None:
    """The user is looked up, then the rights are taken, then the stream opens."""
    with house.stream("red", "bob"):  # so that the worker hears commands
        response = house.app.test_client().get("/stream?channels=red&as=ada", buffered=False)
        recheck = house.app.extensions["sse_push"][house.sse].services.streaming.recheck
        house.revoke("ada")
        eventually(lambda: recheck._revocations)
        reader = Reader(response)
        assert reader.next()["event"] == "sse.open"
        assert farewell(reader) == ("revoked", False)
        response.close()


def test_a_command_given_before_a_workers_first_stream_opens_still_counts(make_app: MakeApp) -> None:
    """The user is looked up, then the rights are taken; only then does the worker begin to hear commands."""
    house = House(make_app, recheck=3600)
    response = house.app.test_client().get("/stream?channels=red&as=ada", buffered=False)
    house.revoke("ada")
    reader = Reader(response)
    event = reader.next()
    if event["event"] == "sse.open":
        event = reader.next()
    assert event["event"] == "sse.close"
    assert (data(event)["reason"], data(event)["reconnect"]) == ("revoked", False)
    response.close()


def test_a_command_from_before_the_user_was_looked_up_does_not_count(make_app: MakeApp) -> None:
    house = House(make_app, recheck=3600)
    with house.stream("red") as ada:
        streaming = house.app.extensions["sse_push"][house.sse].services.streaming
        began = streaming.recheck._watched[house.opened["connection"]].stream.grant.began
        arguments = {"user_id": "ada", "channel": None, "reason": "revoked"}
        streaming.hub.call_soon(lambda: streaming.recheck._revoke_late(arguments, began - 0.001))
        house.publish("still here", "red")
        assert ada.next()["data"] == "still here"
        streaming.hub.call_soon(lambda: streaming.recheck._revoke_late(arguments, began))
        assert farewell(ada) == ("revoked", False)


def test_an_old_command_does_not_count_for_a_new_stream(house: House) -> None:
    with house.stream("red", "bob") as bob:
        house.revoke("ada")
        house.publish("after", "red")
        assert bob.next()["data"] == "after"
        with house.stream("red") as ada:
            house.publish("more", "red")
            assert ada.next()["data"] == "more"


# -- the rules, asked again ----------------------------------------------------------------------------------


def test_a_stream_that_may_stay_stays(house: House) -> None:
    with house.stream("red") as ada:
        before = house.asked
        eventually(lambda: house.asked >= before + 3)
        house.publish("still here", "red")
        assert ada.next()["data"] == "still here"


def test_a_rule_that_changes_takes_the_channel_from_open_streams(house: House) -> None:
    with house.stream("red,blue") as ada:
        house.rooms["ada"] = {"blue"}
        began = time.monotonic()
        assert lost_channel(ada) == "red"
        assert time.monotonic() - began < RECHECK + stretched(0.5)
        house.publish("secret", "red")
        house.publish("open", "blue")
        assert ada.next()["data"] == "open"
        house.rooms["ada"] = set()
        assert lost_channel(ada) == "blue"
        assert farewell(ada) == ("revoked", False)


def test_a_user_who_is_removed_loses_everything(house: House) -> None:
    with house.stream("red,sse") as ada, house.stream("red", "bob") as bob:
        del house.rooms["ada"]
        assert farewell(ada) == ("revoked", False)
        house.publish("after", "red")
        assert bob.next()["data"] == "after"


def test_an_identity_that_expires_ends_its_stream_at_that_moment(make_app: MakeApp) -> None:
    house = House(make_app, recheck=60)
    house.lives = 2.0
    with house.stream("red") as ada:
        event = ada.next()
        assert house.expires - 0.1 <= time.time() < house.expires + stretched(0.6)
        assert (event["event"], data(event)["code"]) == ("sse.error", 1103)
        assert farewell(ada) == ("expired", False)


def test_rules_that_fail_for_a_moment_end_nothing(house: House, caplog: pytest.LogCaptureFixture) -> None:
    with house.stream("red") as ada:
        house.broken = True
        before = house.asked
        eventually(lambda: house.asked > before)
        house.broken = False
        before = house.asked
        eventually(lambda: house.asked >= before + 2)
        house.publish("still here", "red")
        assert ada.next()["data"] == "still here"
    assert "the rights of open streams could not be checked" in caplog.text


def test_rules_that_keep_failing_send_streams_back_to_the_door(house: House) -> None:
    with house.stream("red") as ada:
        house.broken = True
        assert farewell(ada) == ("recheck", True)


def test_streams_of_nobody_on_public_channels_are_never_asked_about(house: House) -> None:
    with house.stream("sse", None), house.stream("red"):
        streaming = house.app.extensions["sse_push"][house.sse].services.streaming
        assert len(streaming.hub) == 2
        assert len(streaming.recheck._watched) == 1


def test_lost_commands_send_every_stream_with_a_user_back_to_the_door(house: House) -> None:
    with house.stream("red") as ada, house.stream("sse", None) as anybody:
        house.app.extensions["sse_push"][house.sse].services.streaming.hub.commands.lost()
        assert farewell(ada) == ("recheck", True)
        house.publish("for all", "sse")
        assert anybody.next()["data"] == "for all"


# -- channels joined later ----------------------------------------------------------------------------------


def joined(reader: Reader) -> list[str]:
    """What the stream has joined; what it missed of it comes before."""
    event = reader.next()
    return joined(reader) if event["event"] == "sse.missed" else list(data(event)["joined"])


def test_what_a_client_joined_is_asked_about_again(house: House) -> None:
    with house.stream("red") as ada:
        house.ask_to_join("blue")
        assert joined(ada) == ["blue"]
        house.rooms["ada"] = {"red"}
        assert lost_channel(ada) == "blue"


def test_what_a_stream_of_nobody_joined_is_asked_about_from_then_on(house: House) -> None:
    house.rooms[""] = {"red"}
    with house.stream("sse", None) as anybody:
        house.ask_to_join("red", None)
        assert joined(anybody) == ["red"]
        house.rooms[""] = set()
        assert lost_channel(anybody) == "red"
        house.publish("for all", "sse")
        assert anybody.next()["data"] == "for all"


def test_what_the_app_had_a_stream_join_stays_until_it_is_revoked(house: House) -> None:
    with house.stream("red") as ada, house.app.app_context():
        house.sse.join(house.opened["connection"], "green")
        assert joined(ada) == ["green"]
        before = house.asked
        eventually(lambda: house.asked >= before + 3)
        house.publish("welcome", "green")
        assert ada.next()["data"] == "welcome"
        house.revoke("ada", "green")
        house.publish("secret", "green")
        assert lost_channel(ada) == "green"
        house.publish("still", "red")
        assert ada.next()["data"] == "still"


def test_a_channel_revoked_while_it_is_joined_does_not_come(house: House) -> None:
    with house.stream("red") as ada, house.app.app_context():
        hub = house.sse.services.streaming.hub
        with hub._lock:  # so that the dispatcher meets both commands at once
            house.ask_to_join("blue")
            house.revoke("ada", "blue")
        events = [ada.next()["event"] for _ in range(2)]
        assert events in (["sse.error", "sse.close"], ["sse.channels", "sse.error"])


# -- logging out --------------------------------------------------------------------------------------------


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
        assert farewell(one) == ("logout", False)
        assert len(app.extensions["sse_push"][club[1]].services.streaming.hub) == 1
    assert ada.get("/stream?channels=user:ada").status_code == 401  # which ends a native EventSource


def test_a_tab_that_came_back_before_the_logout_was_answered_is_sent_away_too(
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
        assert farewell(reader) == ("logout", False)


def test_a_logout_of_nobody_does_nothing(club: tuple[Flask, SSEBlueprint]) -> None:
    app, _ = club
    assert app.test_client().get("/logout").data == b"bye"


def test_a_logout_works_without_the_broker_and_is_told_when_it_is_back(
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
            assert farewell(reader) == ("logout", False)
            assert beside.llen("{club:0}:list:!control") == 0
            proxy.cut()
            proxy.requests.thaw()
            eventually(lambda: beside.llen("{club:0}:list:!control"))
