"""`<prefix>/admin/why`: each reason for which a user gets nothing, produced for real."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import create_engine

from flask_sse_push import MessageAnnouncer
from flask_sse_push.outbox import Outbox
from flask_sse_push.presence import query
from flask_sse_push.web.admin import checks
from tests.support.deadline import eventually
from tests.support.processes import redis_server

from .conftest import MakeApp
from .test_admin import Site

MakeSite = Callable[..., Site]


@pytest.fixture
def make_site(make_app: MakeApp) -> Iterator[MakeSite]:
    sites = []

    def make(**settings: Any) -> Site:
        site = Site(make_app(**settings))
        site.sse.load_user(lambda id: None if id == "gone" else id)
        sites.append(site)
        return site

    yield make
    for site in sites:
        site.streams.close()


def reason(site: Site, question: str = "user=7") -> tuple[str | None, str]:
    """Returns the main reason, and what the page says about it."""
    found = site.read(f"why?{question}")
    told = [each for each in found["findings"] if each["name"] == found["reason"]]
    assert all(each["advice"] for each in told)
    return found["reason"], told[0]["what"] if told else ""


def test_a_user_who_may_not_listen(make_site: MakeSite) -> None:
    site = make_site()

    @site.sse.authorize
    def only_red(user: str, channel: str) -> bool:
        return channel == "red"

    name, what = reason(site, "user=7&channel=blue")
    assert name == "not_authorized"
    assert "only_red" in what
    assert reason(site, "user=7&channel=red")[0] == "not_connected"
    assert reason(site, "user=gone&channel=red")[0] == "unknown_user"
    assert reason(site, "user=7")[0] == "not_connected"  # the channel of the user
    assert reason(site, "user=7&channel=user:8")[0] == "not_authorized"


def test_rules_that_fail_and_users_that_nobody_knows(make_site: MakeSite) -> None:
    site = make_site()
    assert reason(site, "user=gone&channel=blue")[0] == "unknown_user"
    site.open("gone", "sse")  # the app knows the user by another id
    assert reason(site, "user=gone&channel=sse")[0] == "nothing_published"
    site.sse.load_user({"7": "seven"}.__getitem__)
    assert reason(site, "user=8&channel=blue")[0] == "rule_failed"

    @site.sse.authorize
    def broken(user: str, channel: str) -> bool:
        raise RuntimeError("the database is away")

    name, what = reason(site, "user=7&channel=blue")
    assert name == "rule_failed"
    assert "RuntimeError" in what


class Member:
    def __init__(self, id: str) -> None:
        self.id = id


def test_an_app_that_cannot_load_users(make_app: MakeApp) -> None:
    site = Site(make_app())
    site.sse.authorize(lambda user, channel: channel == "red")
    with site.streams:
        assert reason(site, "user=7&channel=blue")[0] == "not_authorized"  # users are plain ids here
        assert reason(site, "user=7&channel=red")[0] == "not_connected"
        site.sse._hooks.identify = [lambda request: Member(request.headers["X-User"])]
        site.sse.authorize_admin(lambda user: user.id == "root")
        site.open("7", "sse")
        found = {each["name"] for each in site.read("why?user=7&channel=blue")["findings"]}
        assert {"not_checked", "not_listening"} <= found
        found = {each["name"] for each in site.read("why?user=7&channel=user:7")["findings"]}
        assert "not_checked" not in found  # the channel of the user needs no rule
        answer = site.client.get("/stream?channels=blue", headers={"X-User": "7"})
        assert answer.status_code == 403
        name, what = reason(site, "user=7&channel=blue")
        assert name == "not_authorized"
        assert answer.get_json()["message"] in what
        assert reason(site, "user=8&channel=blue")[0] == "not_connected"


def test_a_client_that_was_refused_for_another_reason(make_site: MakeSite) -> None:
    site = make_site(max_streams_per_user=1)
    site.open("7", "sse")
    answer = site.client.get("/stream?channels=user:7", headers={"X-User": "7"})
    assert answer.status_code == 429
    name, what = reason(site, "address=127.0.0.1&channel=user:7")
    assert name == "refused"
    assert "429" in what


def test_a_user_without_a_stream_or_with_other_channels(make_site: MakeSite) -> None:
    site = make_site()
    assert reason(site)[0] == "not_connected"
    assert reason(site, "address=10.0.0.1&channel=sse")[0] == "not_connected"
    assert reason(site, "channel=sse")[0] == "not_connected"
    site.open("7", "sse")
    name, what = reason(site)
    assert name == "not_listening"
    assert "'user:7'" in what


def test_a_user_who_has_got_everything(make_site: MakeSite) -> None:
    site = make_site()
    stream = site.follow("7", "user:7")
    site.publish("x", channel="user:7")
    assert stream.next().data == "x"
    eventually(lambda: reason(site) == (None, ""))
    (found,) = site.read("why?user=7")["findings"]
    assert found["name"] == "delivered"
    assert found["link"]["kind"] == "stream"


def test_a_channel_without_events(make_site: MakeSite) -> None:
    site = make_site()
    site.open("7", "user:7")
    assert reason(site)[0] == "nothing_published"


def test_events_that_are_gone(make_site: MakeSite) -> None:
    site = make_site(history_size=1)
    cursor = site.publish("before", channel="user:7")
    site.publish("missed", channel="user:7")
    site.publish("last", channel="user:7")
    reader = site.open("7", "user:7", **{"Last-Event-ID": cursor})
    assert reader.next()["event"] == "sse.reset"
    name, what = reason(site)
    assert name == "history_gone"
    assert "sse.reset" in what


def test_events_that_were_gone_before_the_user_came(make_site: MakeSite) -> None:
    site = make_site()
    site.publish("x", channel="user:7", ttl=0)
    site.open("7", "user:7")
    name, what = reason(site)
    assert name == "history_gone"
    assert "All events" in what


@pytest.mark.parametrize("elsewhere", ["prefix", "database"])
def test_a_publisher_with_other_settings(make_site: MakeSite, valkey_url: str, elsewhere: str) -> None:
    prefix, user = f"why.{secrets.token_hex(4)}", secrets.token_hex(4)
    site = make_site(broker_url=valkey_url, prefix=prefix)
    site.open(user, f"user:{user}")
    url, other = (valkey_url, f"{prefix}.other")
    if elsewhere == "database":
        url, other = valkey_url[:-1] + "9", prefix
    announcer = MessageAnnouncer.from_url(url, SSE_PUSH_PREFIX=other)
    try:
        for number in range(12):  # as on a Redis of many apps
            with closing(MessageAnnouncer.from_url(url, SSE_PUSH_PREFIX=f"another.{number}")) as another:
                another.publish("theirs", channel="user:8")
        announcer.publish("lost", channel="user:8")
        assert reason(site, f"user={user}")[0] == "nothing_published"
        announcer.send_to_user(user, "lost")
        name, what = reason(site, f"user={user}")
        assert name == "other_prefix"
        where = f"under the prefix {other!r}, in the database of this app"
        assert (where if elsewhere == "prefix" else "in database 9") in what
        (told,) = (each for each in site.read(f"why?user={user}")["findings"] if each["name"] == name)
        assert told["link"] == {"kind": "channel", "name": f"user:{user}"}
    finally:
        announcer.close()


def test_a_reset_explains_more_than_earlier_events_under_another_prefix(
    make_site: MakeSite, valkey_url: str
) -> None:
    prefix, user = f"why.{secrets.token_hex(4)}", secrets.token_hex(4)
    site = make_site(broker_url=valkey_url, prefix=prefix)
    with closing(MessageAnnouncer.from_url(valkey_url, SSE_PUSH_PREFIX=f"{prefix}.other")) as other:
        other.send_to_user(user, "before")
        reader = site.open(user, f"user:{user}", **{"Last-Event-ID": "lost-1"})
        assert reader.next()["event"] == "sse.reset"
        assert reason(site, f"user={user}")[0] == "history_gone"
        other.send_to_user(user, "after")
        assert reason(site, f"user={user}")[0] == "other_prefix"


def test_events_that_wait_in_the_outbox(
    make_site: MakeSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site()
    site.open("7", "user:7")
    engine = create_engine(f"sqlite:///{tmp_path / 'shop.db'}")
    with site.app.app_context():
        outbox = Outbox(engine, site.sse)
        (found,) = site.read("outbox")["outboxes"]
        assert "cannot be read" in found["error"]
        assert "cannot be read" in reason(site)[1]
        outbox.create_all()
    monkeypatch.setattr(checks, "WAITED", 0.0)
    name, what = reason(site)
    assert name == "outbox_waiting"
    assert outbox.name in what
    assert [each["name"] for each in site.read("outbox")["outboxes"]] == [outbox.name]
    engine.dispose()


def test_a_worker_that_does_not_answer(make_site: MakeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query, "TIMEOUT", 0.2)
    site = make_site()
    with site.app.app_context():
        site.sse.services.publishing.broker.counts.report("silent", 1, {}, 60)
    name, what = reason(site)
    assert name == "worker_deaf"
    assert "silent" in what
    assert site.read("why?user=7")["missing"] == ["silent"]
    site.open("7", "user:7")
    assert reason(site)[0] == "nothing_published"  # the stream lies on a worker that answers
    assert site.read("streams/none", 404)["message"].endswith("the workers silent did not answer")


def test_a_worker_whose_link_is_broken(make_site: MakeSite, tmp_path: Path) -> None:
    with redis_server(tmp_path) as url, redis.Redis.from_url(url) as admin:
        admin.execute_command("ACL SETUSER app on >secret ~* &* +@all")
        site = make_site(broker_url=url.replace("://", "://app:secret@"))
        site.open("7", "user:7")
        assert reason(site)[0] == "nothing_published"
        admin.execute_command("ACL SETUSER app resetchannels")  # Redis then closes the app's links
        eventually(lambda: reason(site)[0] == "worker_deaf")
        assert "has lost its link" in reason(site)[1]
        found = site.read("why?user=7")["findings"]
        assert [each["name"] for each in found[:2]] == ["worker_deaf", "broker_unavailable"]
        site.read("channel?name=sse", 503)


def test_a_question_names_somebody_or_a_channel(make_site: MakeSite) -> None:
    site = make_site()
    site.read("why", 400)
    site.read("why?user=a%20b", 400)
    site.read("why?user=7&channel=a%20b", 400)
    assert site.read("why?user=a%20b&channel=sse")["reason"] == "not_connected"


def test_one_thing_is_told_in_the_singular_and_with_a_link(make_site: MakeSite) -> None:
    site = make_site()
    for question in ("user=7", "channel=sse", "address=10.0.0.1&channel=sse"):
        (found,) = (
            each for each in site.read(f"why?{question}")["findings"] if each["name"] == "not_connected"
        )
        assert found["link"]["kind"] == "channel"
    site.open("7", "sse")
    assert "has 1 open stream, which does not listen to" in reason(site)[1]
    stream = site.follow("7", "user:7")
    site.publish("x", channel="user:7")
    assert stream.next().data == "x"
    told = [each["what"] for each in site.read("why?user=7")["findings"] if each["name"] == "delivered"]
    assert [each.partition(" has ")[2] for each in told] == [
        "got every event that this app published to it since it opened: 1 event."
    ]


def test_an_address_alone_is_a_question(make_site: MakeSite) -> None:
    site = make_site(public_channels="news")
    assert site.read("why?address=10.0.0.1")["channel"] == "sse"
    site.open("7", "news")
    found = site.read("why?address=127.0.0.1")
    assert (found["channel"], found["reason"]) == ("news", "nothing_published")


def test_an_id_of_the_wrong_form_is_asked_for_and_the_worker_is_named(make_site: MakeSite) -> None:
    site = make_site()
    site.sse.load_user(int)
    (found,) = (
        each for each in site.read("why?user=grace&channel=blue")["findings"] if each["name"] == "rule_failed"
    )
    assert "is 'grace' an id of this app?" in found["what"]
    assert f"process {os.getpid()} on {socket.gethostname()}" in found["advice"]


def test_the_advice_names_both_ways_to_open_a_channel_to_everybody(make_site: MakeSite) -> None:
    site = make_site(public_channels="*", channels={"red": {"public": False}, "user:*": {"public": False}})
    site.sse.authorize(lambda user, channel: False)

    def refusal(channel: str) -> Any:
        found = site.read(f"why?user=7&channel={channel}")["findings"]
        return next(each for each in found if each["name"] == "not_authorized")

    found = refusal("red")
    assert "the policy of 'red' in SSE_PUSH_CHANNELS says that it is not public, and" in found["what"]
    assert "SSE_PUSH_PUBLIC_CHANNELS" in found["advice"]
    assert '"public": True' in found["advice"]
    assert found["link"] == {"kind": "channel", "name": "red"}
    assert "public" not in refusal("user:8")["advice"].lower(), "that would open it to everybody"
