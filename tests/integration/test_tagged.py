"""`?tagged=1`: each event names those of its channels that the stream listens to, and no other."""

from __future__ import annotations

from .conftest import MakeApp
from .test_blueprint import Reader, listening


def tags(stream: Reader, count: int) -> list[tuple[str | None, str]]:
    return [(event.get("channel"), event["data"]) for event in (stream.next() for _ in range(count))]


def test_live_and_missed_events_name_their_channels(make_app: MakeApp) -> None:
    app, sse = make_app(public_channels="*")
    client = app.test_client()

    def publish() -> None:
        with app.app_context():
            sse.publish("one", channel="a")
            sse.publish("both", channel=["b", "hidden", "a"])
            sse.publish("not ours", channel="hidden")
            sse.publish("half", channel=["hidden", "b"])
            sse.broadcast("all")

    expected = [("a", "one"), ("b,a", "both"), ("b", "half"), ("*", "all")]
    with listening(client, "/stream?channels=a,b&tagged=1") as stream:
        cursor = stream.next()["id"]
        publish()
        assert tags(stream, 4) == expected
    with listening(client, f"/stream?channels=b,a&tagged=1&last_event_id={cursor}") as stream:
        stream.next()
        assert tags(stream, 4) == expected


def test_streams_without_the_parameter_get_the_usual_bytes(make_app: MakeApp) -> None:
    app, sse = make_app(public_channels="*")
    client = app.test_client()
    with (
        listening(client, "/stream?channels=a,b&tagged=1") as tagged,
        listening(client, "/stream?channels=a,b") as plain,
    ):
        for stream in (tagged, plain):
            stream.next()
        with app.app_context():
            cursor = sse.publish("both", "kind", channel=["a", "b"])
        assert plain.next() == {"id": cursor, "event": "kind", "data": "both"}
        assert tagged.next() == {"channel": "a,b", "id": cursor, "event": "kind", "data": "both"}


def test_an_event_that_is_not_for_the_stream_names_nothing(make_app: MakeApp) -> None:
    app, sse = make_app(public_channels="*")
    with listening(app.test_client(), "/stream?channels=a&tagged=1") as stream:
        opening = stream.next()
        with app.app_context():
            connection = opening["data"].split('"connection":"')[1].split('"')[0]
            sse.publish("not for you", channel="a", exclude=connection)
            sse.publish("for all", channel="a")
        assert stream.next()["event"] == "sse.heartbeat"
        assert tags(stream, 1) == [("a", "for all")]
