"""What a request asks for: its channels, and where its stream begins."""

from __future__ import annotations

import pytest
from flask import Request
from werkzeug.datastructures import MultiDict
from werkzeug.test import EnvironBuilder

from flask_sse_push.errors import ErrorCode, InvalidEvent, Refused
from flask_sse_push.history.position import StartPoint
from flask_sse_push.protocol.cursor import MAX_LENGTH, parse
from flask_sse_push.web.query import MAX_KEPT, MAX_KEPT_SIZE, QueryCache, batch, channels, read, start

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
def test_a_name_outside_the_grammar_is_a_bad_request(pairs: Pairs, message: str) -> None:
    with pytest.raises(Refused, match=f"^{message}") as caught:
        channels(MultiDict(pairs), 10)
    assert (caught.value.status, caught.value.code) == (400, ErrorCode.INVALID_FORMAT)
    assert isinstance(caught.value.__cause__, InvalidEvent)


def test_as_many_channels_as_allowed_are_counted_without_repeats() -> None:
    assert channels(MultiDict([("channels", "a,b,a,b")]), 2) == ("a", "b")
    with pytest.raises(
        Refused, match=r"^3 channels were asked for, at most 2 are allowed on one stream$"
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
def test_a_cursor_that_is_too_long_is_kept_short_and_is_no_cursor(length: int) -> None:
    for asked in (
        read(MultiDict(), 10).start_for("a" * length),
        read(MultiDict({"last_event_id": "a" * length}), 10).start_for(None),
    ):
        assert asked.cursor is not None
        assert len(asked.cursor) < 10
        assert parse(asked.cursor) is None
        assert asked.newest is None


@pytest.mark.parametrize("last", ["", "x", "-1", "1.5", " 5", "5\n", "\u0665", "²", "1" * 10, "9" * 5000])
def test_a_last_that_is_no_number_is_a_bad_request(last: str) -> None:
    with pytest.raises(Refused, match=r"^last is '.*', must be a number of events$") as caught:
        start(MultiDict({"last": last}))
    assert (caught.value.status, caught.value.code) == (400, ErrorCode.INVALID_FORMAT)
    assert len(caught.value.message) < 100


@pytest.mark.parametrize(
    ("wish", "seconds"), [(None, None), ("0", 0.0), ("100", 0.1), ("120", 0.1), ("0100", 0.1), ("5000", 5.0)]
)
def test_a_wish_for_batches_is_milliseconds(wish: str | None, seconds: float | None) -> None:
    assert batch(MultiDict([] if wish is None else [("batch", wish)])) == seconds


@pytest.mark.parametrize("wish", ["", "-1", "5001", "9999999999", "1e3", "0.1", " 100", "\u0661", "yes"])
def test_what_is_no_wish_for_batches_is_a_bad_request(wish: str) -> None:
    with pytest.raises(Refused, match=r"^batch is .*, must be milliseconds from 0 to 5000$") as caught:
        batch(MultiDict([("batch", wish)]))
    assert (caught.value.status, caught.value.code) == (400, ErrorCode.INVALID_FORMAT)


class Read(Request):
    """A request that knows whether its query was taken apart."""

    @property
    def was_read(self) -> bool:
        return "args" in vars(self)


def asking(query: str) -> Read:
    return Read(EnvironBuilder(query_string=query).get_environ())


def test_a_query_that_others_had_is_not_read_again() -> None:
    queries = QueryCache(10)
    first, again = asking("channels=a,b&batch=100&tagged=1"), asking("channels=a,b&batch=100&tagged=1")
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
def test_what_says_something_of_its_client_and_what_is_long_is_not_kept(query: str) -> None:
    queries = QueryCache(10)
    for asked in (asking(query), asking(query)):
        assert queries.of(asked) == read(asked.args, 10)
        assert asked.was_read


def test_a_bad_query_is_refused_again() -> None:
    queries = QueryCache(10)
    for _ in range(2):
        with pytest.raises(Refused, match=r"^batch is 'x'"):
            queries.of(asking("batch=x"))


def test_queries_kept_are_bounded() -> None:
    queries = QueryCache(10)
    for number in range(MAX_KEPT):
        queries.of(asking(f"channels=c{number}"))
    queries.of(asking("channels=more"))
    assert queries.of(asking("channels=more")).channels == ("more",)
    forgotten = asking("channels=c0")
    assert queries.of(forgotten).channels == ("c0",)
    assert forgotten.was_read
