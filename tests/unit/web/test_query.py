"""The query of a stream: its channels, and where it begins."""

from __future__ import annotations

import pytest
from flask import Request
from werkzeug.datastructures import MultiDict
from werkzeug.test import EnvironBuilder

from flask_sse_push.errors import ErrorCode, InvalidEvent, Refused
from flask_sse_push.history.position import StartPoint
from flask_sse_push.protocol.cursor import MAX_LENGTH, parse
from flask_sse_push.web.query import MAX_KEPT, MAX_KEPT_SIZE, QueryCache, batch, channels, poll, read, start

Pairs = list[tuple[str, str]]


@pytest.mark.parametrize(
    ("pairs", "names"),
    [
        ([], ("sse",)),
        ([("channels", "")], ("sse",)),
        ([("channels", ",,")], ("sse",)),
        ([("channel", "")], ("sse",)),
        ([("channels", "a")], ("a",)),
        ([("channels", "b,a")], ("b", "a")),
        ([("channels", "a,,b,")], ("a", "b")),
        ([("channels", "a,b"), ("channels", "c,a")], ("a", "b", "c")),
        ([("channel", "x")], ("x",)),
        ([("channel", "x"), ("channel", "y"), ("channel", "x")], ("x", "y")),
        ([("channel", "x"), ("channels", "a,x")], ("a", "x")),
        ([("channels", "user:7,a/b.c@d")], ("user:7", "a/b.c@d")),
    ],
)
def test_channels_are_listed_or_repeated(pairs: Pairs, names: tuple[str, ...]) -> None:
    assert channels(MultiDict(pairs), 10) == names


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([("channels", "a,b c")], r"channel has the forbidden character U\+0020 at 1; allowed are"),
        ([("channel", "a,b")], r"channel has the forbidden character U\+002C at 1"),
        ([("channels", "*")], r"channel has the forbidden character U\+002A at 0"),
        ([("channels", "a\nb")], r"channel has the forbidden character U\+000A at 1"),
        ([("channels", "a\0")], r"channel has the forbidden character U\+0000 at 1"),
        ([("channel", "x" * 201)], "channel has 201 characters, must have 1 to 200"),
    ],
)
def test_a_channel_name_that_breaks_the_grammar_is_a_bad_request(pairs: Pairs, message: str) -> None:
    with pytest.raises(Refused, match=f"^{message}") as caught:
        channels(MultiDict(pairs), 10)
    assert (caught.value.status, caught.value.code) == (400, ErrorCode.INVALID_FORMAT)
    assert isinstance(caught.value.__cause__, InvalidEvent)


@pytest.mark.parametrize(("poll", "asks"), [(None, False), ("0", True), ("0.9", True), ("1", False)])
def test_a_stream_that_may_end_at_once_asks_the_broker_first(poll: str | None, asks: bool) -> None:
    given = {} if poll is None else {"poll": poll}
    for more in ({}, {"last": "5"}, {"last_event_id": "ab-2"}):
        query = read(MultiDict({**given, **more}), 10)
        assert query.start.asks_broker is asks
        assert query.start_for("ab-1") == StartPoint("ab-1", asks_broker=asks)


def test_repeated_channels_count_once_towards_the_limit() -> None:
    assert channels(MultiDict([("channels", "a,b,a,b")]), 2) == ("a", "b")
    with pytest.raises(
        Refused, match=r"^the request names 3 channels, at most 2 are allowed on one stream$"
    ) as caught:
        channels(MultiDict([("channels", "a,b,c")]), 2)
    assert (caught.value.status, caught.value.code) == (400, ErrorCode.INVALID_FORMAT)


@pytest.mark.parametrize(
    ("header", "pairs", "expected"),
    [
        (None, [], StartPoint()),
        ("ab-1", [], StartPoint("ab-1")),
        ("ab-1", [("last_event_id", "ab-2"), ("last", "3")], StartPoint("ab-1")),
        ("", [("last_event_id", "ab-2")], StartPoint("ab-2")),
        (None, [("last_event_id", "ab-2"), ("lastEventId", "ab-3")], StartPoint("ab-2")),
        (None, [("last_event_id", ""), ("lastEventId", "ab-3")], StartPoint("ab-3")),
        (None, [("lastEventId", "ab-3"), ("last", "5")], StartPoint("ab-3")),
        (None, [("lastEventId", "earliest")], StartPoint("earliest")),
        (None, [("last_event_id", "")], StartPoint()),
        (None, [("last", "5")], StartPoint(newest=5)),
        (None, [("last", "0")], StartPoint(newest=0)),
        (None, [("last", "999999999")], StartPoint(newest=999_999_999)),
        (None, [("last_event_id", "a\0\x1b\n")], StartPoint("a\0\x1b\n")),
        ("x" * MAX_LENGTH, [], StartPoint("x" * MAX_LENGTH)),
    ],
)
def test_a_stream_begins_at_a_cursor_or_with_the_newest_or_live(
    header: str | None, pairs: Pairs, expected: StartPoint
) -> None:
    assert read(MultiDict(pairs), 10).start_for(header) == expected


@pytest.mark.parametrize("length", [MAX_LENGTH + 1, 5000])
def test_a_cursor_that_is_too_long_is_replaced_by_an_unknown_one(length: int) -> None:
    for begin in (
        read(MultiDict(), 10).start_for("a" * length),
        read(MultiDict({"last_event_id": "a" * length}), 10).start_for(None),
    ):
        assert begin.cursor is not None
        assert len(begin.cursor) < 10
        assert parse(begin.cursor) is None
        assert begin.newest is None


@pytest.mark.parametrize("last", ["", "x", "-1", "1.5", " 5", "5\n", "\u0665", "²", "1" * 10, "9" * 5000])
def test_a_last_that_is_no_number_is_a_bad_request(last: str) -> None:
    with pytest.raises(Refused, match=r"^last is '.*', must be a number of events$") as caught:
        start(MultiDict({"last": last}))
    assert (caught.value.status, caught.value.code) == (400, ErrorCode.INVALID_FORMAT)
    assert len(caught.value.message) < 100


@pytest.mark.parametrize(
    ("value", "seconds"), [(None, None), ("0", 0.0), ("100", 0.1), ("120", 0.1), ("0100", 0.1), ("5000", 5.0)]
)
def test_batch_is_given_in_milliseconds(value: str | None, seconds: float | None) -> None:
    assert batch(MultiDict([] if value is None else [("batch", value)])) == seconds


@pytest.mark.parametrize("value", ["", "-1", "5001", "9999999999", "1e3", "0.1", " 100", "\u0661", "yes"])
def test_a_batch_that_is_no_time_is_a_bad_request(value: str) -> None:
    with pytest.raises(Refused, match=r"^batch is .*, must be milliseconds from 0 to 5000$") as caught:
        batch(MultiDict([("batch", value)]))
    assert (caught.value.status, caught.value.code) == (400, ErrorCode.INVALID_FORMAT)


class Read(Request):
    """A request that notes whether its query was parsed."""

    @property
    def was_read(self) -> bool:
        return "args" in vars(self)


def request_with(query: str) -> Read:
    return Read(EnvironBuilder(query_string=query).get_environ())


def test_a_query_in_the_cache_is_not_parsed_again() -> None:
    queries = QueryCache(10)
    query = "channels=a,b&batch=100&tagged=1"
    first, again = request_with(query), request_with(query)
    assert queries.of(first) == queries.of(again) == read(first.args, 10)
    assert first.was_read
    assert not again.was_read


@pytest.mark.parametrize(
    "query",
    [
        "channels=a&ticket=t",
        "channels=a&last_event_id=e-1",
        "channels=a&lastEventId=e-1",
        "channels=a&token=secret",
        "channels=a&" + "&" * MAX_KEPT_SIZE,
    ],
)
def test_a_query_with_a_clients_own_values_or_a_long_one_is_not_cached(query: str) -> None:
    queries = QueryCache(10)
    for request in (request_with(query), request_with(query)):
        assert queries.of(request) == read(request.args, 10)
        assert request.was_read


def test_a_bad_query_is_refused_again() -> None:
    queries = QueryCache(10)
    for _ in range(2):
        with pytest.raises(Refused, match=r"^batch is 'x'"):
            queries.of(request_with("batch=x"))


def test_the_cache_has_a_limited_size() -> None:
    queries = QueryCache(10)
    for number in range(MAX_KEPT):
        queries.of(request_with(f"channels=c{number}"))
    queries.of(request_with("channels=more"))
    assert queries.of(request_with("channels=more")).channels == ("more",)
    forgotten = request_with("channels=c0")
    assert queries.of(forgotten).channels == ("c0",)
    assert forgotten.was_read


@pytest.mark.parametrize(
    ("value", "seconds"), [("0", 0.0), ("25", 25.0), ("0.5", 0.5), ("55", 55.0), ("007", 7.0)]
)
def test_a_short_stream_waits_for_so_many_seconds(value: str, seconds: float) -> None:
    assert poll(MultiDict([("poll", value)])) == seconds
    assert poll(MultiDict()) is None


@pytest.mark.parametrize(
    "value", ["", "56", "55.1", "-1", "+1", "1e1", "0x1", "inf", "nan", " 1", "1 ", "٣", "1.", "1" * 99]
)
def test_a_short_stream_cannot_wait_for_anything_else(value: str) -> None:
    with pytest.raises(Refused, match=r"^poll is '.*', must be seconds from 0 to 55$") as caught:
        poll(MultiDict([("poll", value)]))
    assert (caught.value.status, caught.value.code) == (400, ErrorCode.INVALID_FORMAT)
