"""Open streams whose rights end: by a command, a changed rule, time, or a logout."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from flask import current_app

from flask_sse_push import Identity
from flask_sse_push.hub.revocations import Revocation
from tests.support.deadline import eventually, stretched

from .conftest import MakeApp
from .test_blueprint import Reader, listening

#: Seconds between two checks of a stream.
RECHECK = 0.2


class Site:
    """An app whose rules a test can change. `?as=` names the user."""

    def __init__(self, make_app: MakeApp, **settings: Any) -> None:
        self.app, self.sse = make_app(**{"recheck": RECHECK, **settings})
        self.rules = {"ada": {"red", "blue"}, "bob": {"red"}}
        self.calls = 0
        self.broken = False
        self.lifetime: float | None = None  # of identities, in seconds
        self.expires = 0.0  # of the newest identity
        self.sse.identify(lambda request: self.identity(request.args.get("as")))
        self.sse.authorize(self.allowed)

    def identity(self, name: str | None) -> Identity | None:
        if name is None:
            return None
        expires = None if self.lifetime is None else time.time() + self.lifetime
        self.expires = expires or 0.0
        return Identity(name, expires=expires, renew=lambda: name if name in self.rules else None)

    def allowed(self, user: str | None, channel: str) -> bool:
        assert current_app
        self.calls += 1
        if self.broken:
            raise RuntimeError("the database is away")
        return channel in self.rules.get(user or "", ())

    @contextlib.contextmanager
    def stream(self, channels: str, user: str | None = "ada") -> Iterator[Reader]:
        path = f"/stream?channels={channels}" + (f"&as={user}" if user else "")
        with listening(self.app.test_client(), path) as reader:
            opened = reader.next()
            assert opened["event"] == "sse.open"
            self.opened = json.loads(opened["data"])
            yield reader

    def ask_to_join(self, channel: str, user: str | None = "ada") -> None:
        """Asks as the client of the newest stream does."""
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
def site(make_app: MakeApp) -> Site:
    return Site(make_app)


def data(event: dict[str, str]) -> Any:
    return json.loads(event["data"])


def close_reason(reader: Reader) -> tuple[str, bool]:
    """Returns the reason and `reconnect` of `sse.close`, which must be the next and last event."""
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


# -- commands ------------------------------------------------------------------------------------------------


def test_revoking_a_channel_leaves_the_others(site: Site) -> None:
    with site.stream("red,blue") as ada, site.stream("red", "bob") as bob:
        site.publish("before", "red")
        site.revoke("ada", "red")
        site.publish("for bob", "red")
        site.publish("for ada", "blue")
        assert ada.next()["data"] == "before"
        assert lost_channel(ada) == "red"
        assert ada.next()["data"] == "for ada"
        assert [bob.next()["data"], bob.next()["data"]] == ["before", "for bob"]


def unpacked(reader: Reader, count: int) -> list[str]:
    """Returns the data of the next `count` events, which come in batches."""
    found: list[str] = []
    while len(found) < count:
        event = reader.next()
        assert event["event"] == "sse.batch", event
        found += [one["data"] for one in data(event)]
    return found


@pytest.mark.parametrize("company", [False, True], ids=["alone", "with streams that have what is left"])
def test_what_waits_in_a_batch_comes_before_its_channel_is_revoked(site: Site, company: bool) -> None:
    site.rules["eve"] = {"red", "blue"}
    with contextlib.ExitStack() as streams:
        ada = streams.enter_context(site.stream("red,blue&batch=250"))
        eve = streams.enter_context(site.stream("red,blue&batch=250", "eve"))
        others = [streams.enter_context(site.stream("blue&batch=250", "eve"))] if company else []
        site.publish("1", "red")
        site.publish("2", "blue")
        site.revoke("ada", "red")
        site.publish("3", "red")
        site.publish("4", "blue")
        assert unpacked(ada, 2) == ["1", "2"]
        assert lost_channel(ada) == "red"
        assert unpacked(ada, 1) == ["4"]
        assert unpacked(eve, 4) == ["1", "2", "3", "4"]
        for reader in others:
            assert unpacked(reader, 2) == ["2", "4"]
        site.publish("5", "blue")
        for reader in (ada, eve, *others):
            assert unpacked(reader, 1) == ["5"]


def test_revoking_the_last_channel_ends_the_stream_for_good(site: Site) -> None:
    with site.stream("red") as ada:
        site.revoke("ada", "red")
        site.publish("secret", "red")
        assert lost_channel(ada) == "red"
        assert close_reason(ada) == ("revoked", False)


def test_revoking_a_user_ends_all_their_streams_and_no_others(site: Site) -> None:
    with site.stream("red") as one, site.stream("blue,sse") as two, site.stream("red", "bob") as bob:
        site.revoke("ada")
        site.publish("after", "red")
        assert close_reason(one) == close_reason(two) == ("revoked", False)
        assert bob.next()["data"] == "after"


def test_a_channel_that_is_left_is_no_longer_followed_when_nobody_else_has_it(make_app: MakeApp) -> None:
    site = Site(make_app, linger=0)
    with site.stream("red,blue") as ada, site.app.app_context():
        before = site.sse.stats()["channels"]
        site.revoke("ada", "red")
        assert lost_channel(ada) == "red"
        eventually(lambda: site.sse.stats()["channels"] == before - 1)


def test_a_command_that_comes_while_the_stream_is_being_made_still_counts(site: Site) -> None:
    """The app looks the user up, then revokes, then the stream opens."""
    with site.stream("red", "bob"):  # so that the worker hears commands
        response = site.app.test_client().get("/stream?channels=red&as=ada", buffered=False)
        hub = site.app.extensions["sse_push"][site.sse].services.streaming.hub
        site.revoke("ada")
        eventually(lambda: hub.disconnector._revocations._all)
        reader = Reader(response)
        assert reader.next()["event"] == "sse.open"
        assert close_reason(reader) == ("revoked", False)
        response.close()


def test_a_command_given_before_a_workers_first_stream_opens_still_counts(make_app: MakeApp) -> None:
    """The app looks the user up, then revokes. Only then does the worker subscribe to commands."""
    site = Site(make_app, recheck=3600)
    response = site.app.test_client().get("/stream?channels=red&as=ada", buffered=False)
    site.revoke("ada")
    reader = Reader(response)
    event = reader.next()
    if event["event"] == "sse.open":
        event = reader.next()
    assert event["event"] == "sse.close"
    assert (data(event)["reason"], data(event)["reconnect"]) == ("revoked", False)
    response.close()


def test_a_command_from_before_the_user_was_looked_up_does_not_count(make_app: MakeApp) -> None:
    site = Site(make_app, recheck=3600)
    with site.stream("red"):
        streaming = site.app.extensions["sse_push"][site.sse].services.streaming
        grant = streaming.recheck._watched[site.opened["connection"]].stream.grant
        arguments = {"user_id": "ada", "channel": None, "reason": "revoked"}
        is_later = streaming.hub.disconnector._revocations.is_later
        assert not is_later(Revocation.of(arguments, 0, grant.began - 0.001), grant)
        assert is_later(Revocation.of(arguments, 0, grant.began), grant)


def test_an_old_command_does_not_count_for_a_new_stream(site: Site) -> None:
    with site.stream("red", "bob") as bob:
        site.revoke("ada")
        site.publish("after", "red")
        assert bob.next()["data"] == "after"
        with site.stream("red") as ada:
            site.publish("more", "red")
            assert ada.next()["data"] == "more"


# -- the rules, checked again --------------------------------------------------------------------------------


def test_a_stream_that_may_stay_stays(site: Site) -> None:
    with site.stream("red") as ada:
        before = site.calls
        eventually(lambda: site.calls >= before + 3)
        site.publish("still here", "red")
        assert ada.next()["data"] == "still here"


def test_a_rule_that_changes_takes_the_channel_from_open_streams(site: Site) -> None:
    with site.stream("red,blue") as ada:
        site.rules["ada"] = {"blue"}
        began = time.monotonic()
        assert lost_channel(ada) == "red"
        assert time.monotonic() - began < RECHECK + stretched(0.5)
        site.publish("secret", "red")
        site.publish("open", "blue")
        assert ada.next()["data"] == "open"
        site.rules["ada"] = set()
        assert lost_channel(ada) == "blue"
        assert close_reason(ada) == ("revoked", False)


def test_a_user_who_is_removed_loses_everything(site: Site) -> None:
    with site.stream("red,sse") as ada, site.stream("red", "bob") as bob:
        del site.rules["ada"]
        assert close_reason(ada) == ("revoked", False)
        site.publish("after", "red")
        assert bob.next()["data"] == "after"


def test_an_identity_that_expires_ends_its_stream_at_that_time(make_app: MakeApp) -> None:
    site = Site(make_app, recheck=60)
    site.lifetime = 2.0
    with site.stream("red") as ada:
        event = ada.next()
        assert site.expires - 0.1 <= time.time() < site.expires + stretched(0.6)
        assert (event["event"], data(event)["code"]) == ("sse.error", 1103)
        assert close_reason(ada) == ("expired", False)


def test_rules_that_fail_for_a_moment_end_nothing(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    with site.stream("red") as ada:
        site.broken = True
        before = site.calls
        eventually(lambda: site.calls > before)
        site.broken = False
        before = site.calls
        eventually(lambda: site.calls >= before + 2)
        site.publish("still here", "red")
        assert ada.next()["data"] == "still here"
    assert "the rights of open streams could not be checked" in caplog.text


def test_rules_that_keep_failing_make_the_client_reconnect(site: Site) -> None:
    with site.stream("red") as ada:
        site.broken = True
        assert close_reason(ada) == ("recheck", True)


def test_streams_of_nobody_on_public_channels_are_never_checked(site: Site) -> None:
    with site.stream("sse", None), site.stream("red"):
        streaming = site.app.extensions["sse_push"][site.sse].services.streaming
        assert len(streaming.hub) == 2
        assert len(streaming.recheck._watched) == 1


def test_lost_commands_make_every_stream_with_a_user_reconnect(site: Site) -> None:
    with site.stream("red") as ada, site.stream("sse", None) as anybody:
        site.app.extensions["sse_push"][site.sse].services.streaming.hub.commands.lost()
        assert close_reason(ada) == ("recheck", True)
        site.publish("for all", "sse")
        assert anybody.next()["data"] == "for all"


# -- channels joined later -----------------------------------------------------------------------------------


def joined(reader: Reader) -> list[str]:
    """Returns the channels that the stream has joined; skips the events it missed."""
    event = reader.next()
    return joined(reader) if event["event"] == "sse.missed" else list(data(event)["joined"])


def test_a_channel_that_a_client_joined_is_checked_again(site: Site) -> None:
    with site.stream("red") as ada:
        site.ask_to_join("blue")
        assert joined(ada) == ["blue"]
        site.rules["ada"] = {"red"}
        assert lost_channel(ada) == "blue"


def test_a_channel_joined_by_a_stream_without_a_user_is_checked_from_then_on(site: Site) -> None:
    site.rules[""] = {"red"}
    with site.stream("sse", None) as anybody:
        site.ask_to_join("red", None)
        assert joined(anybody) == ["red"]
        site.rules[""] = set()
        assert lost_channel(anybody) == "red"
        site.publish("for all", "sse")
        assert anybody.next()["data"] == "for all"


def test_a_channel_that_the_app_added_stays_until_it_is_revoked(site: Site) -> None:
    with site.stream("red") as ada, site.app.app_context():
        site.sse.join(site.opened["connection"], "green")
        assert joined(ada) == ["green"]
        before = site.calls
        eventually(lambda: site.calls >= before + 3)
        site.publish("welcome", "green")
        assert ada.next()["data"] == "welcome"
        site.revoke("ada", "green")
        site.publish("secret", "green")
        assert lost_channel(ada) == "green"
        site.publish("still", "red")
        assert ada.next()["data"] == "still"


def test_a_channel_revoked_while_it_is_joined_does_not_come(site: Site) -> None:
    with site.stream("red") as ada, site.app.app_context():
        hub = site.sse.services.streaming.hub
        with hub._lock:  # so that the dispatcher handles both commands in one go
            site.ask_to_join("blue")
            site.revoke("ada", "blue")
        events = [ada.next()["event"] for _ in range(2)]
        assert events in (["sse.error", "sse.close"], ["sse.channels", "sse.error"])
