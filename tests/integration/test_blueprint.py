"""The blueprint as an app meets it, over Flask's test client and the memory broker."""

from __future__ import annotations

import contextlib
import datetime
import decimal
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask, url_for
from flask.testing import FlaskClient
from flask_login import LoginManager, UserMixin, login_user, logout_user
from werkzeug.test import TestResponse

from flask_sse_push import (
    ConfigError,
    InvalidEvent,
    MessageTooLarge,
    SSEBlueprint,
    event_published,
    history_lost,
    stream_closed,
    stream_opened,
)
from tests.support.deadline import eventually

from .conftest import MakeApp


class Reader:
    """Events of a test response, one after another."""

    def __init__(self, response: TestResponse) -> None:
        self.response = response
        self._body: Iterator[bytes] = iter(response.response)  # type: ignore[arg-type]
        self._text = ""

    def next(self) -> dict[str, str]:
        while "\n\n" not in self._text:
            self._text += next(self._body).decode()
        block, _, self._text = self._text.partition("\n\n")
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        return fields if "data" in fields else self.next()


@contextlib.contextmanager
def listening(client: FlaskClient, path: str, **options: Any) -> Iterator[Reader]:
    response = client.open(path, buffered=False, **options)
    try:
        assert response.status_code == 200, response.get_data(as_text=True)
        yield Reader(response)
    finally:
        response.close()


def test_an_event_published_in_a_view_arrives(make_app: MakeApp) -> None:
    app, sse = make_app()

    @app.post("/say")
    def say() -> str:
        return sse.publish({"text": "hi"}, type="said")

    with listening(app.test_client(), "/stream") as reader:
        opened = reader.next()
        assert opened["event"] == "sse.open"
        cursor = app.test_client().post("/say").get_data(as_text=True)
        assert reader.next() == {"id": cursor, "event": "said", "data": '{"text": "hi"}\t'}


def test_the_response_headers(make_app: MakeApp) -> None:
    app, _ = make_app()
    with listening(app.test_client(), "/stream") as reader:
        headers = reader.response.headers
        assert headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert headers["Cache-Control"] == "no-cache, no-store, no-transform, private"
        assert headers["X-Accel-Buffering"] == "no"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize(
    ("path", "channels"),
    [
        ("/stream", ["sse"]),
        ("/stream/", ["sse"]),
        ("/stream?channels=a,b", ["a", "b"]),
        ("/stream?channel=a&channel=b&channels=c,a", ["c", "a", "b"]),
        ("/stream?channels=user:7@x/y-z_.", ["user:7@x/y-z_."]),
    ],
)
def test_channels_are_named_in_the_query(make_app: MakeApp, path: str, channels: list[str]) -> None:
    app, _ = make_app(public_channels="*")
    with listening(app.test_client(), path) as reader:
        assert app.json.loads(reader.next()["data"])["channels"] == channels


@pytest.mark.parametrize(
    "path",
    [
        "/stream?channels=a%0Ab",
        "/stream?channel=%F0%9F%98%80",
        "/stream?channels=" + "x" * 201,
        "/stream?channels=" + ",".join(f"c{n}" for n in range(51)),
        "/stream?last=many",
        "/stream?last=-1",
    ],
)
def test_a_bad_request_is_refused_with_the_error_body(make_app: MakeApp, path: str) -> None:
    app, _ = make_app(public_channels="*")
    answer = app.test_client().get(path)
    assert answer.status_code == 400
    assert answer.json is not None
    assert set(answer.json) == {"code", "name", "message", "details", "retry", "timestamp"}
    assert answer.json["code"] == 1301
    assert answer.json["name"] == "INVALID_FORMAT"


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
def test_other_methods_are_not_allowed(make_app: MakeApp, method: str) -> None:
    app, _ = make_app()
    assert app.test_client().open("/stream", method=method).status_code == 405


def test_options_and_head_answer_without_a_stream(make_app: MakeApp) -> None:
    app, sse = make_app()
    assert "GET" in app.test_client().options("/stream").headers["Allow"]
    assert app.test_client().head("/stream").status_code == 200
    with app.app_context():
        assert sse.stats()["streams"] == 0


def test_last_and_earliest_bring_kept_events(make_app: MakeApp) -> None:
    app, sse = make_app(public_channels="*")
    with app.app_context():
        for n in range(5):
            sse.publish(str(n), channel="a" if n % 2 else "b")
    client = app.test_client()
    for query, expected in (("last=2", "34"), ("last_event_id=earliest", "01234"), ("last=99", "01234")):
        with listening(client, f"/stream?channels=a,b&{query}") as reader:
            assert reader.next()["event"] == "sse.open"
            assert "".join(reader.next()["data"] for _ in expected) == expected
    with listening(client, "/stream?channels=a,b&last=0") as reader, app.app_context():
        reader.next()
        sse.publish("live", channel="a")
        assert reader.next()["data"] == "live"


def test_a_client_resumes_with_other_channels(make_app: MakeApp) -> None:
    app, sse = make_app(public_channels="*")
    with app.app_context():
        cursor = sse.publish("seen", channel="a")
        sse.publish("missed a", channel="a")
        sse.publish("missed b", channel="b")
    with listening(app.test_client(), "/stream?channels=b,c", headers={"Last-Event-ID": cursor}) as reader:
        assert app.json.loads(reader.next()["data"])["resumed"] is True
        assert reader.next()["data"] == "missed b"


def test_the_header_counts_before_the_query(make_app: MakeApp) -> None:
    app, sse = make_app()
    with app.app_context():
        first, second = sse.publish("1"), sse.publish("2")
        sse.publish("3")
    path = f"/stream?last_event_id={first}"
    with listening(app.test_client(), path, headers={"Last-Event-ID": second}) as reader:
        reader.next()
        assert reader.next()["data"] == "3"


def test_an_event_in_several_channels_comes_once(make_app: MakeApp) -> None:
    app, sse = make_app(public_channels="*")
    with listening(app.test_client(), "/stream?channels=a,b,c") as reader, app.app_context():
        cursor = reader.next()["id"]
        sse.publish("both", channel=["a", "b"])
        sse.publish("end", channel="c")
        assert [reader.next()["data"], reader.next()["data"]] == ["both", "end"]
    with listening(app.test_client(), f"/stream?channels=a,b,c&last_event_id={cursor}") as reader:
        assert [reader.next()["data"] for _ in range(3)][1:] == ["both", "end"]


def test_channels_are_closed_by_default_and_the_refusal_says_how_to_open_them(make_app: MakeApp) -> None:
    app, _ = make_app()
    answer = app.test_client().get("/stream?channels=secret")
    assert answer.status_code == 403
    assert answer.json is not None
    assert answer.json["code"] == 1201
    assert "SSE_PUSH_PUBLIC_CHANNELS" in answer.json["message"]
    assert "@sse.authorize" in answer.json["message"]


def test_authorize_gets_the_user_of_identify(make_app: MakeApp) -> None:
    app, sse = make_app()
    calls: list[tuple[object, str]] = []

    @sse.identify
    def who(request: Any) -> str | None:
        return request.args.get("as")  # type: ignore[no-any-return]

    @sse.authorize
    def allowed(user: object, channel: str) -> bool:
        calls.append((user, channel))
        return user == "ada"

    client = app.test_client()
    assert client.get("/stream?channels=room").status_code == 401
    assert client.get("/stream?channels=room&as=bob").status_code == 403
    with listening(client, "/stream?channels=room,user:ada&as=ada"):
        pass
    assert calls == [(None, "room"), ("bob", "room"), ("ada", "room")]
    assert client.get("/stream?channels=user:ada&as=bob").status_code == 403


def test_the_user_of_flask_login_is_the_user(make_app: MakeApp) -> None:
    app, sse = make_app()
    login = LoginManager(app)

    class User(UserMixin):  # type: ignore[misc]
        def __init__(self, id: str) -> None:
            self.id = id

    login.user_loader(User)

    @app.get("/login/<name>")
    def sign_in(name: str) -> str:
        login_user(User(name))
        return ""

    @app.get("/logout")
    def sign_out() -> str:
        logout_user()
        return ""

    client = app.test_client()
    assert client.get("/stream?channels=user:ada").status_code == 401
    client.get("/login/ada")
    with listening(client, "/stream?channels=user:ada") as reader, app.app_context():
        reader.next()
        sse.send_to_user("ada", "for you", "note")
        assert reader.next()["data"] == "for you"
    assert client.get("/stream?channels=user:bob").status_code == 403
    client.get("/logout")
    assert client.get("/stream?channels=user:ada").status_code == 401


def test_exclude_keeps_an_event_from_a_user_and_from_a_connection(make_app: MakeApp) -> None:
    app, sse = make_app()

    @sse.identify
    def who(request: Any) -> str | None:
        return request.args.get("as")  # type: ignore[no-any-return]

    client = app.test_client()
    with (
        listening(client, "/stream?as=ada") as ada,
        listening(client, "/stream?as=bob") as bob,
        app.app_context(),
    ):
        ada.next()
        connection = app.json.loads(bob.next()["data"])["connection"]
        hidden = sse.publish("not for ada", exclude="ada")
        sse.publish("not for bob's tab", exclude=[connection])
        sse.publish("for all")
        assert ada.next() == {"id": hidden, "event": "sse.heartbeat", "data": "{}"}
        assert [ada.next()["data"], ada.next()["data"]] == ["not for bob's tab", "for all"]
        got = [bob.next()["data"] for _ in range(3)]
        assert got == ["not for ada", "{}", "for all"]


def test_broadcast_reaches_every_stream(make_app: MakeApp) -> None:
    app, sse = make_app(public_channels="*")
    client = app.test_client()
    with (
        listening(client, "/stream?channels=a") as one,
        listening(client, "/stream?channels=b") as two,
        app.app_context(),
    ):
        cursor = one.next()["id"]
        two.next()
        sse.broadcast("everybody", "news")
        assert one.next()["data"] == two.next()["data"] == "everybody"
    with listening(client, f"/stream?channels=z&last_event_id={cursor}") as late:
        late.next()
        assert late.next()["data"] == "everybody"


def test_an_event_with_a_ttl_of_zero_is_live_only(make_app: MakeApp) -> None:
    app, sse = make_app()
    with listening(app.test_client(), "/stream") as reader, app.app_context():
        cursor = reader.next()["id"]
        sse.publish("typing", ttl=0)
        sse.publish("said")
        assert [reader.next()["data"], reader.next()["data"]] == ["typing", "said"]
    with listening(app.test_client(), f"/stream?last_event_id={cursor}") as reader:
        assert app.json.loads(reader.next()["data"])["resumed"] is True
        assert reader.next()["data"] == "said"


def test_json_goes_through_the_apps_provider(make_app: MakeApp) -> None:
    app, sse = make_app()
    with listening(app.test_client(), "/stream") as reader, app.app_context():
        reader.next()
        sse.publish({"day": datetime.date(2026, 1, 2), "price": decimal.Decimal("1.50")})
        assert app.json.loads(reader.next()["data"]) == {
            "day": "Fri, 02 Jan 2026 00:00:00 GMT",
            "price": "1.50",
        }


def test_the_standard_message(make_app: MakeApp) -> None:
    app, sse = make_app()
    with listening(app.test_client(), "/stream") as reader, app.app_context():
        reader.next()
        sse.notify("saved", {"id": 5}, level="warning")
        event = reader.next()
        message = app.json.loads(event["data"])
        assert event["event"] == "saved"
        assert set(message) == {"type", "data", "timestamp", "id", "level"}
        assert (message["type"], message["data"], message["level"]) == ("saved", {"id": 5}, "warning")
        with pytest.raises(InvalidEvent, match="level"):
            sse.notify("saved", 1, level="loud")


def test_publishing_a_wrong_event_raises(make_app: MakeApp) -> None:
    app, sse = make_app(max_message=20)
    with app.app_context():
        with pytest.raises(MessageTooLarge, match=r"21 bytes.*20") as caught:
            sse.publish("x" * 21)
        assert (caught.value.size, caught.value.max_bytes) == (21, 20)
        with pytest.raises(InvalidEvent, match="type"):
            sse.publish("x", type="a\nb")
        with pytest.raises(InvalidEvent, match="channel"):
            sse.publish("x", channel="a b")


def test_two_apps_and_two_blueprints_share_nothing(make_app: MakeApp) -> None:
    sse = SSEBlueprint("sse")
    apps = []
    for _ in range(2):
        app = Flask(__name__)
        app.register_blueprint(sse, url_prefix="/events")
        apps.append(app)
    other = SSEBlueprint("other")
    apps[0].register_blueprint(other, url_prefix="/other")
    with (
        listening(apps[0].test_client(), "/events") as one,
        listening(apps[1].test_client(), "/events") as two,
        listening(apps[0].test_client(), "/other") as three,
    ):
        for reader in (one, two, three):
            reader.next()
        with apps[0].app_context():
            sse.publish("first app")
            other.publish("other blueprint")
        with apps[1].app_context():
            sse.publish("second app")
        assert one.next()["data"] == "first app"
        assert two.next()["data"] == "second app"
        assert three.next()["data"] == "other blueprint"
    for app in apps:
        with app.app_context():
            sse.services.close()
    with apps[0].app_context():
        other.services.close()


def test_init_app_takes_the_prefix_from_the_settings() -> None:
    app = Flask(__name__)
    app.config["SSE_PUSH_URL_PREFIX"] = "/push/here"
    sse = SSEBlueprint("sse")
    sse.init_app(app)
    with app.test_request_context():
        assert url_for("sse.stream") == "/push/here"
        assert url_for("sse.stream", channels="a,b") == "/push/here?channels=a,b"
    with app.test_client().get("/push/here/client/push-client.js") as script:
        assert script.status_code == 200
        assert script.mimetype == "text/javascript"


def test_publishing_without_an_app_or_a_registration_says_what_to_do() -> None:
    sse = SSEBlueprint("sse")
    with pytest.raises(RuntimeError, match=r"app_context.*MessageAnnouncer\.from_url"):
        sse.publish("x")
    with Flask("shop").app_context(), pytest.raises(RuntimeError, match=r"shop.*register_blueprint"):
        sse.publish("x")


def test_a_wrong_setting_stops_the_registration() -> None:
    app = Flask(__name__)
    app.config["SSE_PUSH_HISTORY_SIZE"] = "lots"
    with pytest.raises(ConfigError, match=r"SSE_PUSH_HISTORY_SIZE is 'lots'.*whole number"):
        app.register_blueprint(SSEBlueprint("sse"))


def test_publish_many_and_batch_keep_their_order(make_app: MakeApp) -> None:
    app, sse = make_app()
    with listening(app.test_client(), "/stream") as reader, app.app_context():
        reader.next()
        cursors = sse.publish_many([{"data": n} for n in range(3)])
        with sse.batch() as batch:
            batch.publish(3)
            batch.publish(4, "last")
        events = [reader.next() for _ in range(5)]
        assert [event["data"] for event in events] == [f"{n}\t" for n in range(5)]
        assert [event["id"] for event in events] == cursors + batch.cursors
        with contextlib.suppress(ZeroDivisionError), sse.batch() as batch:
            batch.publish("never")
            batch.publish(1 // 0)
        sse.publish("next")
        assert reader.next()["data"] == "next"


def test_signals_report_streams_and_events(make_app: MakeApp) -> None:
    app, sse = make_app()
    names: list[str] = []

    def hear(name: str) -> Any:
        def receiver(sender: Flask, **facts: Any) -> None:
            assert sender is app
            names.append(name)

        return receiver

    receivers = {
        signal: hear(signal.name) for signal in (stream_opened, stream_closed, history_lost, event_published)
    }
    for signal, receiver in receivers.items():
        signal.connect(receiver, app)
    with listening(app.test_client(), "/stream?last_event_id=unknown") as reader, app.app_context():
        reader.next()
        sse.publish("x")
    eventually(lambda: len(names) == 4)
    assert sorted(names) == ["event-published", "history-lost", "stream-closed", "stream-opened"]
