"""The announcer over the memory broker: what it stores, what it refuses, and that neither happens by half."""

from __future__ import annotations

import inspect
import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flask_sse_push import BrokerUnavailable, ConfigError, InvalidEvent, MessageAnnouncer, MessageTooLarge
from flask_sse_push.brokers.announcer import DEFAULT_CHANNEL, FIELDS, LEVELS, MAX_BATCH, MAX_STORED, Batch
from flask_sse_push.brokers.memory import MemoryBroker
from flask_sse_push.config import Settings
from flask_sse_push.protocol.channel import BROADCAST
from flask_sse_push.protocol.cursor import parse
from flask_sse_push.protocol.entry import Entry
from tests.support.policies import keeping


class Publishing:
    """An announcer and its broker."""

    def __init__(self, dumps: Callable[[Any], str] = json.dumps, **settings: Any) -> None:
        self.broker = MemoryBroker(keeping(1000, 3600))
        self.announcer = MessageAnnouncer(self.broker, Settings(**settings), dumps)

    def entries(self, channel: str = DEFAULT_CHANNEL) -> list[Entry]:
        return self.broker.history({channel: 0}, "nobody").channels[channel].entries

    def bodies(self, channel: str = DEFAULT_CHANNEL) -> list[str]:
        return [entry.frame.decode().partition("\n")[2] for entry in self.entries(channel)]

    def cursors(self, channel: str = DEFAULT_CHANNEL) -> list[str]:
        return [
            entry.frame.decode().partition("\n")[0].removeprefix("id: ") for entry in self.entries(channel)
        ]


@pytest.fixture
def publishing() -> Publishing:
    return Publishing()


# -- one event -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        ("Hello", "data: Hello\n"),
        ("", "data: \n"),
        ("two\nlines", "data: two\ndata: lines\n"),
        ({"message": "Hello!"}, 'data: {"message": "Hello!"}\t\n'),
        ([1, None, True], "data: [1, null, true]\t\n"),
        (None, "data: null\t\n"),
        (0, "data: 0\t\n"),
        ("\0\u2028ü", "data: \0\u2028ü\n"),
    ],
)
def test_strings_are_sent_as_they_are_and_all_else_as_json_with_a_mark(
    publishing: Publishing, data: Any, lines: str
) -> None:
    publishing.announcer.publish(data)
    assert publishing.bodies() == [lines + "\n"]


def test_a_type_and_a_retry_are_written(publishing: Publishing) -> None:
    publishing.announcer.publish("x", "greeting", retry=1500)
    publishing.announcer.publish("y", type="greeting")
    assert publishing.bodies() == [
        "event: greeting\nretry: 1500\ndata: x\n\n",
        "event: greeting\ndata: y\n\n",
    ]


def test_publish_returns_the_cursor_that_clients_get(publishing: Publishing) -> None:
    returned = [publishing.announcer.publish(n) for n in range(3)]
    assert returned == publishing.cursors()
    assert all(parse(cursor) for cursor in returned)


def test_an_event_goes_to_one_channel_or_several(publishing: Publishing) -> None:
    publishing.announcer.publish("default")
    publishing.announcer.publish("one", channel="a")
    publishing.announcer.publish("both", channel=["a", "b", "a"])
    publishing.announcer.publish("any iterable", channel=(name for name in "bc"))
    assert publishing.bodies("sse") == ["data: default\n\n"]
    assert publishing.bodies("a") == ["data: one\n\n", "data: both\n\n"]
    assert publishing.bodies("b") == ["data: both\n\n", "data: any iterable\n\n"]
    assert publishing.cursors("a")[1] == publishing.cursors("b")[0]


def test_an_app_may_bring_its_own_json() -> None:
    publishing = Publishing(dumps=lambda value: f"[{value}]")
    publishing.announcer.publish(7)
    publishing.announcer.publish("text")
    assert publishing.bodies() == ["data: [7]\t\n\n", "data: text\n\n"]


def test_exclusions_and_the_time_to_live_are_stored(publishing: Publishing) -> None:
    publishing.announcer.publish("x", exclude="connection-1")
    publishing.announcer.publish("x", exclude=["connection-1", 42], ttl=1.5)  # type: ignore[list-item]
    publishing.announcer.publish("x", ttl=0)
    first, second, third = publishing.entries()
    assert (set(first.exclude), first.expires) == ({"connection-1"}, 0)
    assert (set(second.exclude), second.expires) == ({"connection-1", "42"}, second.id + 1_500_000)
    assert third.expires == third.id


def test_the_same_id_publishes_once(publishing: Publishing) -> None:
    first = publishing.announcer.publish("x", id="order-7.paid")
    assert publishing.announcer.publish("x", id="order-7.paid") == first
    assert publishing.announcer.publish("x", id="order-7.sent") != first
    assert len(publishing.entries()) == 2


# -- what is refused -----------------------------------------------------------------------------------------


class Unreadable:
    """Nothing that JSON knows."""


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"data": b"bytes"}, "data", "bytes"),
    ({"data": Unreadable()}, "data", "JSON"),
    ({"data": {"deep": {1, 2}}}, "data", "JSON"),
    ({"data": "\ud800"}, "data", "U+D800"),
    ({"type": "a\nb"}, "type", "U+000A at 1"),
    ({"type": "a\rb"}, "type", "U+000D at 1"),
    ({"type": "\0"}, "type", "U+0000"),
    ({"type": "sse.open"}, "type", "sse."),
    ({"type": ""}, "type", "0 characters"),
    ({"type": "x" * 201}, "type", "201"),
    ({"type": 1.5}, "type", "string"),
    ({"channel": "a b"}, "channel", "U+0020 at 1"),
    ({"channel": "ü"}, "channel", "U+00FC"),
    ({"channel": "a\n"}, "channel", "U+000A"),
    ({"channel": BROADCAST}, "channel", "U+002A"),
    ({"channel": ""}, "channel", "0 characters"),
    ({"channel": "x" * 201}, "channel", "201"),
    ({"channel": []}, "channel", "0 names"),
    ({"channel": [f"c{n}" for n in range(101)]}, "channel", "101 names"),
    ({"channel": ["a", 1.5]}, "channel", "string"),
    ({"id": "with space"}, "id", "U+0020 at 4"),
    ({"id": ""}, "id", "0 characters"),
    ({"id": "x" * 129}, "id", "129"),
    ({"id": 1.5}, "id", "string"),
    ({"retry": -1}, "retry", "-1"),
    ({"retry": 1.5}, "retry", "1.5"),
    ({"retry": True}, "retry", "True"),
    ({"retry": 10**12}, "retry", "milliseconds"),
    ({"ttl": -1}, "ttl", "-1"),
    ({"ttl": "1"}, "ttl", "seconds"),
    ({"ttl": float("nan")}, "ttl", "nan"),
    ({"ttl": True}, "ttl", "True"),
    ({"exclude": ["x" * 201]}, "exclude", "200"),
    ({"exclude": "\udfff"}, "exclude", "UTF-8"),
    ({"exclude": [str(n) for n in range(101)]}, "exclude", "101"),
]


@pytest.mark.parametrize(("fields", "field", "problem"), REFUSED, ids=range(len(REFUSED)))
def test_a_bad_field_is_named_and_nothing_is_published(
    publishing: Publishing, fields: dict[str, Any], field: str, problem: str
) -> None:
    with pytest.raises(InvalidEvent) as caught:
        publishing.announcer.publish(**{"data": "x", **fields})
    assert caught.value.field == field
    assert problem in caught.value.problem
    assert isinstance(caught.value, ValueError)
    assert publishing.entries() == []


def test_a_message_may_be_as_big_as_the_limit_in_bytes() -> None:
    publishing = Publishing(max_message=10)
    publishing.announcer.publish("x" * 10)
    publishing.announcer.publish("ü" * 5)
    publishing.announcer.publish([1, 2], "the-type-does-not-count")
    publishing.announcer.publish(["123456"])  # the mark of JSON does not count
    assert len(publishing.entries()) == 4


@pytest.mark.parametrize(
    ("data", "size"), [("x" * 11, 11), ("ü" * 6, 12), (["12345678"], 12), ("\n" * 11, 11)]
)
def test_a_bigger_message_is_refused_with_both_sizes(data: Any, size: int) -> None:
    publishing = Publishing(max_message=10)
    with pytest.raises(MessageTooLarge) as caught:
        publishing.announcer.publish(data)
    assert (caught.value.size, caught.value.max_bytes) == (size, 10)
    assert f"{size} bytes" in str(caught.value)
    assert "SSE_PUSH_MAX_MESSAGE allows 10" in str(caught.value)
    assert publishing.entries() == []


# -- several events ------------------------------------------------------------------------------------------


def test_many_events_are_published_in_order(publishing: Publishing) -> None:
    events: list[dict[str, Any]] = [
        {"data": 1},
        {"data": 2, "type": "t", "channel": ["sse", "b"], "ttl": 5},
        {"data": 3},
    ]
    cursors = publishing.announcer.publish_many(events)
    assert cursors == publishing.cursors()
    assert publishing.bodies() == ["data: 1\t\n\n", "event: t\ndata: 2\t\n\n", "data: 3\t\n\n"]
    assert publishing.cursors("b") == [cursors[1]]
    assert events[0] == {"data": 1}


def test_many_events_may_be_none_or_come_one_by_one(publishing: Publishing) -> None:
    assert publishing.announcer.publish_many([]) == []
    assert len(publishing.announcer.publish_many({"data": n} for n in range(3))) == 3


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"data": "x", "channel": "a b"}, "events[1]: channel: has the forbidden character U+0020 at 1"),
        ({"data": "x", "channel": ["a", "b c"]}, "events[1]: channel[1]: has the forbidden character"),
        ({"data": "x", "exclude": ["a", None]}, "events[1]: exclude[1]: is None, must be the id of a user"),
        ({"data": "x" * 10_001}, "events[1]: data: the event has 10001 bytes"),
        ({"data": "x", "chanel": "a"}, "events[1]: has the unknown field 'chanel'; the fields are channel, "),
        ({"data": "x", "self": "a"}, "events[1]: has the unknown field 'self'"),
        ({"data": "x", 1: "a"}, "events[1]: has the unknown field 1"),
        ({"type": "t"}, "events[1]: data: is missing"),
        ({"data": "x", "id": "own"}, "events[1]: id: one of several events cannot have its own id"),
        ("text", "events[1]: is 'text', must be a mapping such as {"),
        (None, "events[1]: is None, must be a mapping such as {"),
        (("data", 1), "events[1]: is ('data', 1), must be a mapping such as {"),
    ],
)
def test_of_many_events_the_wrong_one_is_named_and_none_is_published(
    publishing: Publishing, wrong: Any, problem: str
) -> None:
    with pytest.raises(InvalidEvent) as caught:
        publishing.announcer.publish_many([{"data": "good"}, wrong, {"data": "good"}])
    assert caught.value.field == "events[1]"
    assert problem in str(caught.value)
    assert publishing.entries() == []


@pytest.mark.parametrize("events", [None, 5, "text", b"bytes", {"data": 1}])
def test_events_that_are_no_list_are_refused(publishing: Publishing, events: Any) -> None:
    with pytest.raises(InvalidEvent, match=r"^events: is .*, must be a list such as \[{\"data\": 1"):
        publishing.announcer.publish_many(events)
    with pytest.raises(InvalidEvent, match=r"^events: is "), publishing.announcer.batch() as batch:
        batch.publish_many(events)


def test_an_event_of_several_has_the_arguments_of_publish() -> None:
    assert set(inspect.signature(Batch.publish).parameters) - {"self"} == FIELDS


def test_many_events_with_an_id_are_published_once(publishing: Publishing) -> None:
    first = publishing.announcer.publish_many([{"data": 1}, {"data": 2}], id="together")
    assert publishing.announcer.publish_many([{"data": 1}, {"data": 2}], id="together") == first
    assert len(publishing.entries()) == 2


def test_too_many_events_are_refused(publishing: Publishing) -> None:
    assert len(publishing.announcer.publish_many([{"data": n} for n in range(MAX_BATCH)])) == MAX_BATCH
    with pytest.raises(InvalidEvent, match=str(MAX_BATCH)):
        publishing.announcer.publish_many({"data": n} for n in range(MAX_BATCH + 1))
    assert len(publishing.entries()) == MAX_BATCH


def test_events_are_counted_for_each_of_their_channels(publishing: Publishing) -> None:
    event = {"data": 1, "channel": [f"c{n}" for n in range(100)]}
    assert len(publishing.announcer.publish_many([event] * (MAX_STORED // 100))) == MAX_STORED // 100
    with pytest.raises(InvalidEvent, match=r"events\[100\].*10000 if an event counts.*several batches"):
        publishing.announcer.publish_many([event] * (MAX_STORED // 100 + 1))
    assert len(publishing.entries("c5")) == MAX_STORED // 100


def test_a_batch_is_published_when_its_block_ends(publishing: Publishing) -> None:
    with publishing.announcer.batch() as batch:
        batch.publish(1)
        batch.publish(2, "t", channel=["sse", "b"], retry=5, exclude="me", ttl=1)
        assert publishing.entries() == []
        assert batch.cursors == []
    assert batch.cursors == publishing.cursors()
    assert publishing.bodies() == ["data: 1\t\n\n", "event: t\nretry: 5\ndata: 2\t\n\n"]
    assert publishing.entries("b")[0].exclude == {"me"}


def test_a_batch_that_raises_publishes_nothing(publishing: Publishing) -> None:
    def good_and_bad() -> None:
        with publishing.announcer.batch() as batch:
            batch.publish(1)
            batch.publish(2, channel="a b")

    with pytest.raises(InvalidEvent, match="channel"):
        good_and_bad()
    assert publishing.entries() == []


def test_an_empty_batch_is_none(publishing: Publishing) -> None:
    with publishing.announcer.batch() as batch:
        pass
    assert batch.cursors == []


def test_a_batch_with_an_id_is_published_once(publishing: Publishing) -> None:
    for _ in range(2):
        with publishing.announcer.batch(id="once") as batch:
            batch.publish(1)
    assert batch.cursors == publishing.cursors()


# -- the standard message, users, everybody ------------------------------------------------------------------


def test_a_notification_is_the_standard_message(publishing: Publishing) -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    publishing.announcer.notify("order.paid", {"order": 7}, level="warning", channel="shop")
    event, data, *rest = publishing.bodies("shop")[0].split("\n")
    assert (event, rest) == ("event: order.paid", ["", ""])
    message = json.loads(data.removeprefix("data: "))
    assert list(message) == ["type", "data", "timestamp", "id", "level"]
    assert (message["type"], message["data"], message["level"]) == ("order.paid", {"order": 7}, "warning")
    assert before <= datetime.fromisoformat(message["timestamp"]) <= datetime.now(UTC)
    assert uuid.UUID(message["id"]).hex == message["id"]


def test_two_equal_notifications_are_two_events(publishing: Publishing) -> None:
    cursors = [publishing.announcer.notify("t", "same") for _ in range(2)]
    assert cursors == publishing.cursors()
    messages = [json.loads(body.split("data: ")[1]) for body in publishing.bodies()]
    assert messages[0]["id"] != messages[1]["id"]
    assert {message["level"] for message in messages} == {"info"}


@pytest.mark.parametrize("level", LEVELS)
def test_every_level_is_taken(publishing: Publishing, level: str) -> None:
    publishing.announcer.notify("t", None, level=level)
    assert f'"level": "{level}"' in publishing.bodies()[0]


def test_the_type_of_a_notification_is_named_if_it_is_wrong(publishing: Publishing) -> None:
    for type in (object(), "sse.open", ""):
        with pytest.raises(InvalidEvent, match=r"^type: "):
            publishing.announcer.notify(type, "x")  # type: ignore[arg-type]
    assert publishing.entries() == []


@pytest.mark.parametrize("connection", [None, "", 7, ["a", "b"]])
def test_the_connection_of_a_command_must_be_the_id_of_one_stream(
    publishing: Publishing, connection: Any
) -> None:
    for command in (publishing.announcer.join, publishing.announcer.leave):
        with pytest.raises(InvalidEvent, match=r"^connection: is .*, must be the id of one stream"):
            command(connection, "a")
    if connection:
        with pytest.raises(InvalidEvent, match=r"^connection: is .*, must be the id of one stream"):
            publishing.announcer.disconnect(connection=connection)


@pytest.mark.parametrize("level", ["fatal", "INFO", "", None])
def test_another_level_is_refused(publishing: Publishing, level: Any) -> None:
    with pytest.raises(InvalidEvent, match="debug, info, warning, error, critical") as caught:
        publishing.announcer.notify("t", "x", level=level)
    assert caught.value.field == "level"
    assert publishing.entries() == []


@pytest.mark.parametrize("user", [7, "7"])
def test_a_user_has_a_channel_of_their_own(publishing: Publishing, user: object) -> None:
    cursor = publishing.announcer.send_to_user(user, {"n": 1}, "hint")
    assert publishing.bodies("user:7") == ['event: hint\ndata: {"n": 1}\t\n\n']
    assert publishing.cursors("user:7") == [cursor]


def test_a_user_id_that_fits_no_channel_is_refused(publishing: Publishing) -> None:
    for id, problem in (("a b", r"U\+0020 at 1"), ("x" * 196, "must have 1 to 195")):
        with pytest.raises(InvalidEvent, match=rf"^user_id: .*{problem}.*; the id is a part of the name"):
            publishing.announcer.send_to_user(id, "x")


def test_a_broadcast_goes_to_the_channel_of_every_stream(publishing: Publishing) -> None:
    cursor = publishing.announcer.broadcast("to all", "news")
    assert publishing.bodies(BROADCAST) == ["event: news\ndata: to all\n\n"]
    assert publishing.cursors(BROADCAST) == [cursor]
    assert publishing.entries() == []


# -- how it comes to be --------------------------------------------------------------------------------------


def test_an_announcer_is_made_from_a_url_and_settings_by_their_keys() -> None:
    announcer = MessageAnnouncer.from_url("memory://", SSE_PUSH_MAX_MESSAGE=3)
    announcer.publish("abc")
    with pytest.raises(MessageTooLarge):
        announcer.publish("abcd")
    announcer.close()
    announcer.close()


def test_the_environment_holds_the_other_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSE_PUSH_MAX_MESSAGE", "3")
    monkeypatch.setenv("SSE_PUSH_BROKER_URL", "redis://not.asked.for")
    announcer = MessageAnnouncer.from_url("memory://")
    with pytest.raises(MessageTooLarge):
        announcer.publish("abcd")
    announcer.close()


def test_a_wrong_setting_is_refused() -> None:
    with pytest.raises(ConfigError, match="SSE_PUSH_MAX_MESSAGE"):
        MessageAnnouncer.from_url("memory://", SSE_PUSH_MAX_MESSAGE=0)
    with pytest.raises(ConfigError, match="SSE_PUSH_MAX_MESAGE"):
        MessageAnnouncer.from_url("memory://", SSE_PUSH_MAX_MESAGE=5)
    with pytest.raises(ConfigError, match="SSE_PUSH_BROKER_URL"):
        MessageAnnouncer.from_url("localhost:6379")


@pytest.mark.parametrize(
    ("keywords", "hint"),
    [
        ({"prefix": "shop"}, "there is no setting prefix; did you mean SSE_PUSH_PREFIX?"),
        ({"SSE_PUSH_PREFX": "shop"}, "there is no setting SSE_PUSH_PREFX; did you mean SSE_PUSH_PREFIX?"),
        ({"history_size": 5}, "there is no setting history_size; did you mean SSE_PUSH_HISTORY_SIZE?"),
        ({"sse_push_ttl": 5}, "there is no setting sse_push_ttl; "),
        ({"SECRET_KEY": "x"}, "there is no setting SECRET_KEY; "),
        ({"zzz": 1}, "there is no setting zzz; docs/settings.md lists all settings"),
    ],
)
def test_a_keyword_that_is_no_setting_is_refused_with_the_name_that_was_meant(
    keywords: dict[str, Any], hint: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        MessageAnnouncer.from_url("memory://", **keywords)
    assert str(caught.value).startswith(hint)
    assert caught.value.key in keywords


def test_a_second_broker_url_is_refused() -> None:
    MessageAnnouncer.from_url("memory://", SSE_PUSH_BROKER_URL="memory://").close()
    with pytest.raises(ConfigError, match="SSE_PUSH_BROKER_URL") as caught:
        MessageAnnouncer.from_url("memory://", SSE_PUSH_BROKER_URL="redis://:secret@host/0")
    assert "secret" not in str(caught.value)


def test_an_announcer_without_an_app_may_get_a_function_that_writes_json() -> None:
    announcer = MessageAnnouncer.from_url("memory://", dumps=lambda value: b'"mine"')
    announcer.publish({"a": 1})
    (entry,) = announcer._broker.history({"sse": 0}, "nobody").channels["sse"].entries
    assert b'data: "mine"' in entry.frame


def in_a_batch(announcer: MessageAnnouncer, data: Any) -> None:
    with announcer.batch() as batch:
        batch.publish(1)
        batch.publish(data)


WAYS: dict[str, Callable[[MessageAnnouncer, Any], object]] = {
    "publish": lambda announcer, data: announcer.publish(data),
    "compressed": lambda announcer, data: announcer.publish(data, compress="auto"),
    "publish_many": lambda announcer, data: announcer.publish_many([{"data": 1}, {"data": data}]),
    "batch": in_a_batch,
    "send_to_user": lambda announcer, data: announcer.send_to_user(7, data),
    "broadcast": lambda announcer, data: announcer.broadcast(data),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_publishing_refuses_numbers_that_json_does_not_have(
    publishing: Publishing, way: str
) -> None:
    with pytest.raises(InvalidEvent, match=r'data\["prices"\]\[1\] is NaN, which JSON does not have'):
        WAYS[way](publishing.announcer, {"prices": [1, float("nan")]})
    for channel in ("sse", "user:7", BROADCAST):
        assert publishing.entries(channel) == []


def test_a_notification_and_a_command_refuse_such_numbers_too(publishing: Publishing) -> None:
    with pytest.raises(InvalidEvent, match=r'data\["data"\]\["n"\] is -Infinity, which JSON does not have'):
        publishing.announcer.notify("t", {"n": float("-inf")})
    with pytest.raises(InvalidEvent, match=r"^command: own: "):
        publishing.announcer.command("own", n=float("nan"))
    assert publishing.entries() == []


def test_the_error_of_an_unavailable_broker_is_raised() -> None:
    announcer = MessageAnnouncer.from_url("redis://127.0.0.1:1/0", SSE_PUSH_PUBLISH_TIMEOUT=0.2)
    with pytest.raises(BrokerUnavailable):
        announcer.publish("x")
    with pytest.raises(BrokerUnavailable), announcer.batch() as batch:
        batch.publish("x")
    assert batch.cursors == []
    announcer.close()


def test_a_batch_takes_all_kinds_of_events(publishing: Publishing) -> None:
    with publishing.announcer.batch() as batch:
        batch.publish_many([{"data": 1, "channel": "a"}, {"data": 2, "channel": "b"}])
        id = batch.notify("order.paid", {"order": 7}, channel="shop")
        batch.send_to_user(7, "hint")
        batch.broadcast("to all")
    assert len(batch.cursors) == 5
    assert [each.channels for each in batch.publications] == [
        ("a",),
        ("b",),
        ("shop",),
        ("user:7",),
        (BROADCAST,),
    ]
    assert id in batch.publications[2].body.decode()
