"""The admin page's routes: who may use them, what they answer, and how writes are protected."""

from __future__ import annotations

import json
import logging
import secrets
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import urljoin

import pytest
from flask import Flask
from flask.testing import FlaskClient
from flask_wtf.csrf import CSRFProtect
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import TestResponse

from flask_sse_push import MessageAnnouncer, SSEBlueprint
from flask_sse_push.brokers.base import NO_INBOX
from flask_sse_push.brokers.memory import MemoryBroker
from flask_sse_push.brokers.sharded import ShardedBroker
from flask_sse_push.config import Settings
from flask_sse_push.testing import SSEClient
from flask_sse_push.web.admin import streams, watch
from tests.support.deadline import eventually

from .conftest import MakeApp
from .test_blueprint import Reader, listening

ADMIN = {"X-User": "root"}
#: All reads below `<prefix>/admin/`, with parameters that they accept.
READS = (
    "session",
    "streams",
    "channels",
    "channel?name=sse",
    "channel/events?name=sse",
    "workers",
    "runs",
    "outbox",
    "doctor",
    "why?user=7",
)


class Site:
    """An app with the admin `root`. The header `X-User` names the user of a request."""

    def __init__(self, made: tuple[Flask, SSEBlueprint]) -> None:
        self.app, self.sse = made
        self.sse.identify(lambda request: request.headers.get("X-User"))
        self.sse.authorize_admin(lambda user: user == "root")
        self.client: FlaskClient = self.app.test_client()
        self.streams = ExitStack()

    def read(self, path: str, status: int = 200) -> Any:
        answer = self.client.get(f"/stream/admin/{path}", headers=ADMIN)
        assert answer.status_code == status, answer.text
        assert answer.headers["Cache-Control"] == "no-store"
        return answer.get_json()

    def write(self, path: str, body: Any, user: str = "root", **headers: str) -> TestResponse:
        """Sends a write as the page does."""
        sent = {"X-User": user, **self.read("session")["write_headers"], **headers}
        return self.client.post(f"/stream/admin/{path}", json=body, headers=sent)

    def open(self, user: str, channels: str = "sse", **more: str) -> Reader:
        """Opens a stream, which closes after the test. `more` are headers."""
        path, headers = f"/stream?channels={channels}", {"X-User": user, **more}
        reader = self.streams.enter_context(listening(self.app.test_client(), path, headers=headers))
        assert reader.next()["event"] == "sse.open"
        return reader

    def follow(self, user: str, channels: str) -> Any:
        """Opens a stream whose events are read at once, by a thread. It closes after the test."""
        client = self.streams.enter_context(SSEClient(self.app))
        return client.open(*channels.split(","), headers={"X-User": user})

    def publish(self, data: Any, **options: Any) -> str:
        with self.app.app_context():
            return self.sse.publish(data, **options)


@pytest.fixture(params=["memory", "valkey"])
def site(request: pytest.FixtureRequest, make_app: MakeApp) -> Iterator[Site]:
    if request.param == "memory":
        made = make_app()
    else:
        url = request.getfixturevalue("valkey_url")
        made = make_app(broker_url=url, prefix=f"admin.{secrets.token_hex(4)}")
    site = Site(made)
    with site.streams:
        yield site


# -- who may -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", *[f"/{read}" for read in READS]])
def test_only_admins_see_the_page_and_its_data(make_app: MakeApp, path: str) -> None:
    app, sse = make_app()
    client = app.test_client()
    assert client.get(f"/stream/admin{path}").status_code == 404
    site = Site((app, sse))
    assert client.get(f"/stream/admin{path}").status_code == 401
    assert client.get(f"/stream/admin{path}", headers={"X-User": "guest"}).status_code == 403
    assert client.get(f"/stream/admin{path}", headers=ADMIN).status_code == 200
    assert client.head(f"/stream/admin{path}", headers=ADMIN).status_code == 200
    assert client.put(f"/stream/admin{path}", headers=ADMIN).status_code == 405
    assert site.client.get("/stream/admin/nothing", headers=ADMIN).status_code == 404


def test_only_admins_listen_to_the_live_channel(make_app: MakeApp) -> None:
    app, sse = make_app(public_channels="*", recheck=0.2)
    sse.authorize(lambda user, channel: True)
    client = app.test_client()
    assert client.get("/stream?channels=sse.admin").status_code == 403
    site = Site((app, sse))
    with site.streams:
        refused = client.get("/stream?channels=sse.admin", headers={"X-User": "guest"})
        assert refused.status_code == 403
        assert "authorize_admin" in refused.get_json()["message"]
        reader = site.open("root", "sse.admin")
        with app.app_context(), pytest.raises(Exception, match="authorize_admin"):
            sse.ticket("guest", "sse.admin")
        sse.authorize_admin(lambda user: False)
        found = reader.next()
        while found["event"] != "sse.close":
            found = reader.next()
        assert json.loads(found["data"])["reason"] == "revoked"


def test_not_even_the_app_keeps_others_on_the_live_channel(make_app: MakeApp) -> None:
    site = Site(make_app(recheck=0.2))
    with site.streams:
        reader = site.open("guest")
        connection = site.read("streams")["streams"][0]["connection"]
        with site.app.app_context():
            site.sse.join(connection, ["sse.admin", "red"])
        found = [reader.next() for _ in range(2)]
        assert [each["event"] for each in found] == ["sse.channels", "sse.error"]
        assert json.loads(found[1]["data"])["details"]["channel"] == "sse.admin"


def test_users_who_may_publish_may_not_publish_reports(make_app: MakeApp) -> None:
    app, sse = make_app()
    sse.authorize_publish(lambda user, channel: True)
    body = {"event": "worker", "data": {}, "channel": "sse.admin"}
    assert app.test_client().post("/stream/publish", json=body).status_code == 422


# -- the page ------------------------------------------------------------------------------------------------


def test_the_page_runs_only_its_own_files(make_app: MakeApp) -> None:
    site = Site(make_app(cors_origins=["https://shop.example"]))
    page = site.client.get("/stream/admin", headers={**ADMIN, "Origin": "https://shop.example"})
    assert "script-src 'self'" in page.headers["Content-Security-Policy"]
    assert "unsafe" not in page.headers["Content-Security-Policy"]
    assert page.headers["Cache-Control"] == "no-store"
    assert "Access-Control-Allow-Origin" not in page.headers
    assert 'src="client/admin/' in page.text
    other = site.client.get("/stream/health", headers={**ADMIN, "Origin": "https://shop.example"})
    assert "Access-Control-Allow-Origin" in other.headers


def test_a_browser_shows_a_small_page_to_those_who_may_not_open_the_page(make_app: MakeApp) -> None:
    site, address = Site(make_app()), "/stream/admin"
    browser = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
    for status, user in ((401, {}), (403, {"X-User": "guest"})):
        page = site.client.get(address, headers={**browser, **user})
        assert (page.status_code, page.mimetype) == (status, "text/html")
        assert "<p>Only admins may do this" in page.text
        assert page.headers["Cache-Control"] == "no-store"
        assert page.headers["Content-Security-Policy"]
        for accept in ({}, {"Accept": "*/*"}, {"Accept": "application/json"}):
            other = site.client.get(address, headers={**accept, **user})
            assert (other.status_code, other.is_json) == (status, True)


def test_the_addresses_of_the_page_work_under_any_prefix(make_app: MakeApp) -> None:
    app, sse = make_app()
    assert app.test_client().get("/stream/admin/").status_code == 404
    Site((app, sse))
    mounted = Flask("root")
    mounted.wsgi_app = DispatcherMiddleware(mounted.wsgi_app, {"/shop": app})  # type: ignore[method-assign]
    client = mounted.test_client()
    slash = client.get("/shop/stream/admin/")  # before it is known who asks: an app may send them to sign in
    assert urljoin("/shop/stream/admin/", slash.headers["Location"]) == "/shop/stream/admin"
    assert client.get("/shop/stream/admin", headers=ADMIN).status_code == 200
    assert client.get("/shop/stream/admin/session", headers=ADMIN).status_code == 200
    with client.get("/shop/stream/client/admin/page.js") as script:
        assert script.status_code == 200


def test_a_renamed_static_folder_is_found(make_app: MakeApp) -> None:
    app, sse = Flask(__name__), SSEBlueprint("sse", static_url_path="/files")
    app.register_blueprint(sse, url_prefix="/stream")
    sse.authorize_admin(lambda user: True)
    page = app.test_client().get("/stream/admin")
    assert 'src="files/admin/' in page.text
    assert '"client/' not in page.text


# -- streams -------------------------------------------------------------------------------------------------


def test_streams_come_in_pages_and_by_filter(site: Site) -> None:
    for number in range(5):
        site.open(f"u{number}", f"sse,user:u{number}")
    first = site.read("streams?limit=2")
    assert [each["user_id"] for each in first["streams"]] == ["u4", "u3"]
    assert first["total"] == 5
    second = site.read(f"streams?limit=2&after={first['next']}")
    last = site.read(f"streams?limit=2&after={second['next']}")
    users = [each["user_id"] for page in (second, last) for each in page["streams"]]
    assert users == ["u2", "u1", "u0"]
    assert last["next"] is None
    assert [each["user_id"] for each in site.read("streams?user=u3")["streams"]] == ["u3"]
    assert site.read("streams?channel=user:u1")["total"] == 1
    assert site.read("streams?address=127.0.0.1")["total"] == 5
    assert site.read("streams?address=10.0.0.1")["total"] == 0
    assert site.read("streams?worker=nobody")["total"] == 0
    for wrong in ("limit=0", "limit=201", "limit=x", "after=x", f"user={'x' * 301}"):
        assert site.read(f"streams?{wrong}", 400)["code"] == 1301


def test_a_page_costs_the_same_for_many_streams(make_app: MakeApp) -> None:
    site = Site(make_app())
    with site.streams:
        for _ in range(30):
            site.open("7")
        sizes = [len(json.dumps(site.read(f"streams?limit={limit}"))) for limit in (5, 10)]
        assert sizes[0] < 0.7 * sizes[1]


def test_one_stream_shows_how_far_it_is_behind(site: Site) -> None:
    stream = site.follow("7", "sse,user:7")
    connection = stream.opening["connection"]
    eventually(lambda: site.read(f"streams/{connection}")["stream"]["cursor"])
    site.publish("hello")
    assert stream.next().data == "hello"
    eventually(lambda: site.read(f"streams/{connection}")["stream"]["lag"]["events"] == 0)
    found = site.read(f"streams/{connection}")["stream"]
    assert found["channels"] == ["sse", "user:7"]
    assert found["events"] == 1
    assert found["lag"] == {"events": 0, "seconds": 0}
    assert found["transport"] == "generator"
    assert found["lost_at"] is None
    assert 0 < found["rechecked_in"] <= 60
    assert site.read("streams/none", 404)["code"] == 1302


def test_the_lag_of_a_stream_over_several_shards() -> None:
    settings = Settings()
    broker = ShardedBroker([MemoryBroker(settings.policies) for _ in range(4)])
    announcer, names = MessageAnnouncer(broker, settings), [f"c{number}" for number in range(8)]
    before = {number: shard.probe(NO_INBOX).id for number, shard in enumerate(broker.shards)}
    assert streams.lag(broker, names, before) == {"events": 0, "seconds": 0}
    for name in names:
        announcer.publish("x", channel=name)
    found = streams.lag(broker, names, before)
    assert found["events"] == 8
    assert 0 <= found["seconds"] < 60
    assert streams.lag(broker, names[:2], before)["events"] == 2
    assert streams.lag(broker, names, {}) == {"events": None, "seconds": None}


def test_an_admin_closes_a_stream_and_the_log_says_who(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "flask_sse_push")
    reader = site.open("7")
    connection = site.read("streams")["streams"][0]["connection"]
    answer = site.write(f"streams/{connection}/disconnect", {"reconnect": False})
    assert answer.status_code == 202
    closed = reader.next()
    assert closed["event"] == "sse.close"
    assert json.loads(closed["data"])["reconnect"] is False
    (line,) = [record.getMessage() for record in caplog.records if "admin_write" in record.getMessage()]
    done = f"disconnected the stream {connection!r} (reconnect=False)"
    assert line == f"admin_write: 'root' at 127.0.0.1 {done}"
    bodies: list[Any] = [{"reconnect": 1}, {"other": True}, []]
    for body in bodies:
        assert site.write(f"streams/{connection}/disconnect", body).status_code == 400


# -- channels ------------------------------------------------------------------------------------------------


def test_a_channel_shows_its_policy_its_listeners_and_its_events(site: Site) -> None:
    site.open("7")
    for number in range(5):
        site.publish({"n": number}, type="count")
    site.publish("<script>\x1b[0m\nline two")
    found = site.read("channel?name=sse")
    assert found["policy"]["public"] is True
    assert found["policy"]["history"] == 1000
    assert found["listeners"] == 1
    assert found["presence"] is None
    assert found["kept"]["events"] == 6
    assert found["kept"]["gone"] is None
    # A policy counts what it keeps of an event: the lines `event:` and `data:`, and not its cursor.
    stored = len(b'event: count\ndata: {"n": 0}\n\n') + 1  # a TAB marks JSON
    kept = site.read("channel/events?name=sse")["events"]
    assert [each["bytes"] for each in kept[1:]] == [stored] * 5
    assert found["kept"]["bytes"] == sum(each["bytes"] for each in kept)
    assert [each["name"] for each in site.read("channels")["channels"]] == ["sse"]
    assert site.read("channels?contains=other")["channels"] == []
    page = site.read("channel/events?name=sse&limit=4")
    assert page["events"][0]["data"] == "<script>\\x1b[0m\nline two"
    assert [each["data"] for each in page["events"][1:]] == [f'{{"n": {n}}}' for n in (4, 3, 2)]
    assert page["events"][1]["type"] == "count"
    assert page["events"][1]["json"] is True
    assert 0 <= page["events"][0]["age"] < 60
    rest = site.read(f"channel/events?name=sse&limit=4&before={page['next']}")
    assert [each["data"] for each in rest["events"]] == ['{"n": 1}', '{"n": 0}']
    assert rest["next"] is None
    for wrong in ("name=", "name=a%20b", "name=sse&before=0", "name=sse&before=x"):
        assert site.read(f"channel/events?{wrong}", 400)["code"] == 1301


def test_a_channel_shows_who_is_present(make_app: MakeApp) -> None:
    site = Site(make_app(public_channels="room:*", presence_channels="room:*"))
    with site.streams:
        site.follow("7", "room:1")
        eventually(lambda: site.read("channel?name=room:1")["presence"] == {"count": 1, "users": ["7"]})


def test_long_events_are_cut_and_large_ones_left_out(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    from flask_sse_push.web.admin import events

    monkeypatch.setattr(events, "MAX_READ", 15_000)
    monkeypatch.setattr(events, "ROOM", 6_000)
    for letter in "abcdef":
        site.publish(letter * 5000)
    found = site.read("channel/events?name=sse")["events"]
    assert [each["data"] and each["data"][0] for each in found] == [None, None, "d", "c", "b", "a"]
    assert [len(each["data"]) for each in found[2:]] == [2000] * 4
    assert all(each["cut"] for each in found)


def test_an_admin_publishes_a_test_event(site: Site) -> None:
    reader = site.open("7")
    answer = site.write("channel/events", {"channel": "sse", "type": "test", "data": {"a": 1}})
    assert answer.status_code == 201
    assert answer.get_json()["streams"] == 1
    assert reader.next()["event"] == "test"
    wrong: list[tuple[Any, int]] = [
        ({"channel": "sse.admin", "data": 1}, 422),
        ({"channel": "a b", "data": 1}, 422),
        ({"channel": "sse", "type": "sse.x", "data": 1}, 422),
        ({"channel": "sse"}, 422),
        ({"channel": "sse", "data": "x" * 20_000}, 413),
        ({"channel": "sse", "data": 1, "more": 1}, 400),
    ]
    for body, status in wrong:
        assert site.write("channel/events", body).status_code == status, body


# -- other lists ---------------------------------------------------------------------------------------------


def test_workers_and_runs_are_listed(site: Site) -> None:
    site.open("7")
    (worker,) = site.read("workers")["workers"]
    assert worker["streams"] == 1
    assert worker["own"] is True
    assert worker["memory"] > 10_000_000
    assert site.read("outbox") == {"outboxes": [], "counted_at_most": 100_000}
    go_on = threading.Event()

    def answer() -> Iterator[str]:
        yield "a"
        go_on.wait(60)

    with site.app.app_context():
        site.sse.start(answer, key="answer")
        (run,) = site.read("runs")["runs"]
        go_on.set()
    assert run["key"] == "answer"
    assert run["channel"] == "run:answer"
    assert run["worker"] == worker["worker"]
    assert run["ended"] is None


def test_the_doctor_examines_the_worker(site: Site) -> None:
    found = {each["name"]: each["level"] for each in site.read("doctor")["findings"]}
    assert found["secret key"] == "ok"
    assert "broker" in found or "publish" in found or len(found) > 3


# -- writes --------------------------------------------------------------------------------------------------


EVENT = {"channel": "sse", "data": "x"}


def test_a_write_needs_the_token_of_this_user_and_a_page_of_this_site(make_app: MakeApp) -> None:
    site = Site(make_app(cors_origins=["https://shop.example"]))
    site.sse.authorize_admin(lambda user: user in ("root", "other"))

    def status(**headers: str) -> int:
        return site.write("channel/events", EVENT, **headers).status_code

    assert status() == 201
    assert status(Origin="http://localhost") == 201
    assert status(**{"Origin": "https://localhost", "Sec-Fetch-Site": "same-origin"}) == 201
    assert status(Origin="https://evil.example") == 403
    assert status(Origin="https://shop.example") == 403
    assert status(Origin="null") == 403
    for foreign in ("cross-site", "same-site"):
        assert status(**{"Sec-Fetch-Site": foreign}) == 403
    for token in ("", "x", "é", "a" * 300, site.read("session")["write_headers"]["X-SSE-Admin"][:-1]):
        assert status(**{"X-SSE-Admin": token}) == 403
    refused = site.write("channel/events", EVENT, user="other")
    assert refused.status_code == 403
    assert refused.get_json()["details"] == {"csrf": True}
    form = site.client.post("/stream/admin/channel/events", data=EVENT, headers=ADMIN)
    assert form.status_code == 403


def test_without_a_secret_key_there_are_no_writes(make_app: MakeApp) -> None:
    site = Site(make_app())
    site.app.secret_key = None
    found = site.read("session")
    assert found["write_headers"] is None
    assert "SECRET_KEY" in found["writes_off"]
    refused = site.client.post("/stream/admin/channel/events", json=EVENT, headers=ADMIN)
    assert refused.status_code == 403
    assert "SECRET_KEY" in refused.get_json()["message"]


@pytest.mark.parametrize("exempt", [False, True])
def test_writes_pass_the_apps_own_csrf_protection(make_app: MakeApp, exempt: bool) -> None:
    app, sse = make_app()
    csrf = CSRFProtect(app)
    if exempt:
        csrf.exempt(sse)
    site = Site((app, sse))
    token = site.read("session")["write_headers"]
    assert sorted(token) == ["X-CSRFToken", "X-SSE-Admin"]
    assert site.write("channel/events", EVENT).status_code == 201
    bare = site.client.post("/stream/admin/channel/events", json=EVENT, headers=ADMIN)
    assert bare.status_code == (403 if exempt else 400)


# -- live ----------------------------------------------------------------------------------------------------


def test_workers_report_while_somebody_watches_and_no_longer(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "EVERY", 0.05)
    monkeypatch.setattr(watch, "LEASE", 1)
    monkeypatch.setattr(watch, "RENEW", 0.3)
    site.open("7")
    with site.app.app_context():
        services = site.sse.services
    assert "admin watch" not in vars(services)
    with listening(site.app.test_client(), "/stream?channels=sse.admin", headers=ADMIN) as reader:
        assert reader.next()["event"] == "sse.open"
        for _ in range(30):  # longer than one lease
            event = reader.next()
            assert event["event"] == "worker"
        report = json.loads(event["data"])
        assert report["streams"] == 2
        assert report["every"] == 0.05
    reports = services.publishing.broker.heads
    live = vars(services)["admin watch"]
    eventually(lambda: not live._running)
    head = reports(10)["sse.admin"]
    site.publish("later")
    assert reports(10)["sse.admin"] == head
