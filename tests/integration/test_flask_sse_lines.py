"""The lines of Flask-SSE's documentation, and of apps that use it, work with only the import changed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask import Flask, abort, render_template_string, request
from flask.typing import ResponseReturnValue

from flask_sse_push import InvalidEvent, Message, ServerSentEventsBlueprint
from flask_sse_push.testing import SSEClient, StreamRefused, in_memory, published


def make_app() -> tuple[Flask, ServerSentEventsBlueprint]:
    """Returns an app as Flask-SSE's README makes it."""
    sse = ServerSentEventsBlueprint("sse", __name__)
    app = Flask(__name__)
    app.config["REDIS_URL"] = "redis://localhost"
    app.register_blueprint(sse, url_prefix="/stream")
    return app, sse


def test_the_readme() -> None:
    app, sse = make_app()

    @app.route("/send")
    def send_message() -> str:
        sse.publish({"message": "Hello!"}, type="greeting")
        return "Message sent!"

    @app.route("/")
    def index() -> str:
        return render_template_string("{{ url_for('sse.stream') }} {{ url_for('sse.stream', channel='x') }}")

    with in_memory(app), SSEClient(app) as client:
        assert app.test_client().get("/").text == "/stream /stream?channel=x"
        stream = client.open()
        assert app.test_client().get("/send").text == "Message sent!"
        event = stream.next("greeting")
        assert event.json() == {"message": "Hello!"}


def test_channels_and_access_control() -> None:
    sse = ServerSentEventsBlueprint("sse", __name__)

    @sse.before_request
    def check_access() -> None:
        if request.args.get("channel") == "analytics" and "admin" not in request.args:
            abort(403)

    app = Flask(__name__)
    app.register_blueprint(sse, url_prefix="/stream")
    with in_memory(app, public_channels="*"), SSEClient(app) as client, app.app_context():
        stream = client.open("users.social")
        sse.publish({"user": "alice", "status": "Life is good!"}, channel="users.social")
        assert stream.next().json()["user"] == "alice"
        assert app.test_client().get("/stream?channel=analytics").status_code == 403
        with app.test_client().get("/stream?channel=analytics&admin=1", buffered=False) as response:
            assert response.status_code == 200


def test_a_named_channel_is_closed_until_the_app_opens_it() -> None:
    app, _ = make_app()
    with (
        in_memory(app),
        SSEClient(app) as client,
        pytest.raises(StreamRefused, match="SSE_PUSH_PUBLIC_CHANNELS"),
    ):
        client.open("users.social")


@pytest.mark.parametrize("rule", ["", "/events"])
def test_an_app_may_add_the_route_of_the_stream_itself(rule: str) -> None:
    sse = ServerSentEventsBlueprint("sse", __name__)
    sse.add_url_rule(rule=rule, endpoint="stream", view_func=sse.stream)
    app = Flask(__name__)
    app.register_blueprint(sse, url_prefix="/stream")
    with in_memory(app), app.test_client().get(f"/stream{rule}", buffered=False) as response:
        assert response.mimetype == "text/event-stream"


def test_a_view_of_the_app_may_return_the_stream() -> None:
    app, sse = make_app()

    @app.route("/mine")
    def mine() -> ResponseReturnValue:
        return sse.stream()

    with in_memory(app), app.test_client().get("/mine?channel=sse", buffered=False) as response:
        assert b"sse.open" in next(response.iter_encoded()) + next(response.iter_encoded())


@pytest.mark.parametrize(("given", "name"), [(5, "5"), (-7, "-7"), ([5, "a"], "5")])
def test_whole_numbers_are_channels_types_and_ids(given: object, name: str) -> None:
    app, sse = make_app()
    with in_memory(app), app.app_context():
        cursor = sse.publish("one", 404, channel=given, id=12)  # type: ignore[arg-type]
        assert sse.publish("again", channel=given, id="12") == cursor  # type: ignore[arg-type]
        (event,) = published(app, name)
        assert (event.data, event.type) == ("one", "404")


@pytest.mark.parametrize(
    ("name", "valid"),
    [
        ("breaking news", "breaking-news"),
        ("Übersicht", "Ubersicht"),
        ("room #5 🎉", "room-5-"),
        ("news\n", "news-"),
    ],
)
def test_a_name_with_other_characters_is_refused_with_a_name_that_works(name: str, valid: str) -> None:
    app, sse = make_app()
    with in_memory(app, public_channels="*"), app.app_context():
        with pytest.raises(InvalidEvent, match=f"; '{valid}' would do$"):
            sse.publish("hello", channel=name)
        refused = app.test_client().get("/stream", query_string={"channel": name})
        assert (refused.status_code, refused.json and refused.json["message"][-len("would do") :]) == (
            400,
            "would do",
        )
        sse.publish("hello", channel=valid)
        sse.publish("hello", channel="a/b")


@pytest.mark.parametrize("name", [True, 1.5, 10**150, b"a", None])
def test_what_is_no_name_is_refused(name: object) -> None:
    app, sse = make_app()
    with in_memory(app), app.app_context(), pytest.raises(InvalidEvent, match="channel"):
        sse.publish("hello", channel=name)  # type: ignore[arg-type]


def test_the_class_message() -> None:
    message = Message({"a": "ä\n"}, type="greeting", id="7", retry=100)
    assert str(message) == 'id: 7\nevent: greeting\nretry: 100\ndata: {"a": "\\u00e4\\n"}\n\n'
    assert message.to_dict() == {"data": {"a": "ä\n"}, "type": "greeting", "id": "7", "retry": 100}
    assert Message("one\ntwo") == Message("one\ntwo")
    assert Message("one").to_dict() == {"data": "one"}
    assert str(Message("one\ntwo")) == "data: one\ndata: two\n\n"
    for wrong in (Message("", type="a\ndata: forged"), Message("", id="a\ndata: forged")):
        with pytest.raises(InvalidEvent):
            str(wrong)


@pytest.mark.parametrize(
    ("use", "said"),
    [
        (lambda sse: sse.messages(channel="x"), "return sse.stream()"),
        (lambda sse: sse.redis, "redis.Redis.from_url"),
    ],
    ids=["messages", "redis"],
)
def test_what_is_gone_says_what_to_use(use: Callable[[ServerSentEventsBlueprint], object], said: str) -> None:
    _, sse = make_app()
    with pytest.raises(AttributeError) as caught:
        use(sse)
    assert said in str(caught.value)
    assert not hasattr(sse, "messages")
