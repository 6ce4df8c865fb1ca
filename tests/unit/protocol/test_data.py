"""Data as text: what JSON cannot express is refused with its place, and the default encoding is Flask's."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from flask.json.provider import DefaultJSONProvider
from markupsafe import Markup

from flask_sse_push import InvalidEvent
from flask_sse_push.protocol.data import (
    MARK,
    MAX_PLACE,
    PACKED,
    Envelope,
    flask_dumps,
    json_text,
    parse_json,
    unmarked,
)
from flask_sse_push.protocol.event import make_event
from flask_sse_push.testing.events import Parser

NAN, INFINITY = float("nan"), float("inf")


class NumpyLike(float):
    """A subclass of float, as numpy.float64 is."""


@dataclass
class Quote:
    prices: list[float]


@dataclass(slots=True)
class Keyed:
    prices: dict[float, int]


class Sensor:
    """A type that only the app's JSON provider can write."""


def app_dumps(value: Any) -> str:
    return json.dumps(value, default=lambda each: {"reading": [1, NAN]})


# -- what JSON does not have --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (NAN, "data is NaN"),
        (INFINITY, "data is Infinity"),
        (-INFINITY, "data is -Infinity"),
        ({"prices": [1, 2.5, 3, NAN]}, 'data["prices"][3] is NaN'),
        ({"a": {"b": (0, -INFINITY)}}, 'data["a"]["b"][1] is -Infinity'),
        ([[], ["NaN", NumpyLike("inf")]], "data[1][1] is Infinity"),
        (Quote([1.0, NAN]), 'data["prices"][1] is NaN'),
        ({'quote" and \n': NAN}, 'data["quote\\" and \\n"] is NaN'),
        ({"x": NAN, "y": NAN}, 'data["x"] is NaN'),
        (OrderedDict(x=[{"y": NAN}]), 'data["x"][0]["y"] is NaN'),
        ([Keyed({INFINITY: 1})], 'data[0]["prices"] has NaN or an infinite number as a key'),
        ({NAN: 1}, "data has NaN or an infinite number as a key"),
        ({"a": [{"b": {-INFINITY: 1}}]}, 'data["a"][0]["b"] has NaN or an infinite number as a key'),
        (1e999, "data is Infinity"),
    ],
)
def test_a_number_that_json_does_not_have_is_refused_with_its_place(value: Any, problem: str) -> None:
    with pytest.raises(InvalidEvent) as caught:
        make_event(value)
    assert caught.value.field == "data"
    assert caught.value.problem.startswith(f"{problem}, which JSON does not have; publish ")


@pytest.mark.parametrize(
    ("dumps", "problem"),
    [
        (app_dumps, 'data["sensor"]["reading"][1] is NaN'),
        (lambda value: '{"n": [0, NaN]}', 'data["n"][1] is NaN'),
        (lambda value: b'{"n": [0, -Infinity]}', 'data["n"][1] is -Infinity'),
        (lambda value: '{"n": NaN, "n": 1}', "data is NaN"),
    ],
)
def test_any_provider_may_have_written_it(dumps: Callable[[Any], str | bytes], problem: str) -> None:
    with pytest.raises(InvalidEvent) as caught:
        make_event({"sensor": Sensor()}, dumps=dumps)
    assert caught.value.problem.startswith(f"{problem}, which JSON does not have")


@pytest.mark.parametrize(
    "value",
    [
        {"NaN": "Infinity", "-Infinity": ["NaN"]},
        ['say "NaN": -Infinity'],
        {"title": "Infinity"},
        Decimal("NaN"),
        1.7976931348623157e308,
    ],
)
def test_the_words_may_be_part_of_strings(value: Any) -> None:
    assert make_event(value).data == flask_dumps(value)
    assert make_event("NaN").data == "NaN"
    assert make_event('{"a": Infinity}').data == '{"a": Infinity}'


def test_a_provider_that_writes_null_instead_is_accepted() -> None:
    assert make_event(NAN, dumps=lambda value: "null").data == "null"


def test_a_long_place_is_cut() -> None:
    with pytest.raises(InvalidEvent) as caught:
        make_event({"k" * 10_000: [NAN]})
    assert len(caught.value.problem) < MAX_PLACE + 100
    assert "kkk… is NaN" in caught.value.problem


def test_text_that_is_not_json_is_refused_when_it_is_read_for_a_place() -> None:
    with pytest.raises(InvalidEvent, match="was written as text that is not JSON"):
        make_event(1, dumps=lambda value: "{price: NaN}")
    with pytest.raises(InvalidEvent, match="publish None or a string instead"):
        make_event(1, dumps=lambda value: "[" * 100_000 + "NaN" + "]" * 100_000)


def test_good_data_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flask_sse_push.protocol.data.parse_json", None)
    assert make_event({"price": [1.5, None, "Nan", "infinity"]}).data
    with pytest.raises(TypeError):
        json_text("NaN", json.dumps)


def test_a_function_that_writes_bytes_may_be_used_but_nothing_else() -> None:
    assert make_event({"a": "ü"}, dumps=lambda value: b'{"a":"\xc3\xbc"}').data == '{"a":"ü"}'
    for wrong, name in ((None, "NoneType"), ({}, "dict")):
        with pytest.raises(
            InvalidEvent, match=f"^data: was written as {name}; dumps must return str or bytes$"
        ):
            make_event(1, dumps=lambda value, wrong=wrong: wrong)  # type: ignore[misc]
    with pytest.raises(InvalidEvent, match=r"cannot be written as JSON.*utf-8"):
        make_event(1, dumps=lambda value: b"\xff")


@pytest.mark.parametrize("text", ["NaN", '{"a": [-Infinity]}', b"Infinity"])
def test_json_is_parsed_as_browsers_do(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"^body.* is -?(NaN|Infinity), which JSON does not have$"):
        parse_json(text, "body")
    assert parse_json('["NaN", 1.5]', "body") == ["NaN", 1.5]


# -- the mark -----------------------------------------------------------------------------------------------

#: Text that clients would take for JSON with a mark.
LOOK_ALIKES = ["42\t", '{"a": 1}\t', ' "x" \t', "null\n\t", "NaN\t", "[" * 100_000 + "\t", "1" * 5000 + "\t"]
TEXTS = ["", "42", '{"a": 1}', "null", "\t", "text\t", "42\t\n", "42\t ", '"raw\ttab"\t', "{\t", "\ufeff1\t"]


@pytest.mark.parametrize("text", TEXTS)
def test_text_is_sent_as_it_is(text: str) -> None:
    assert make_event(text).data == text
    assert not make_event(text).is_json
    assert unmarked(text) == (text, False)


@pytest.mark.parametrize("text", LOOK_ALIKES, ids=lambda text: text[:10])
def test_text_that_looks_like_marked_json_is_sent_as_json(text: str) -> None:
    event = make_event(text)
    assert event.is_json
    assert json.loads(event.data) == text
    assert unmarked(event.data + MARK) == (event.data, True)


@pytest.mark.parametrize("value", [None, 42, "42\t", [], {"a": "\t"}, True, 10**30])
def test_values_are_sent_as_json_with_a_mark(value: Any) -> None:
    event = make_event(value, "t")
    assert event.encode() == f"event: t\ndata: {event.data}\t\n\n".encode()
    (received,) = Parser().feed(event.encode())
    assert (received.data, received.is_json, received.json()) == (event.data, True, value)


def test_a_string_of_another_class_is_text() -> None:
    assert make_event(Markup("42")).encode() == b"data: 42\n\n"
    assert type(make_event(Markup("42\t")).data) is str


def test_lone_surrogates_are_refused_in_text_that_looks_like_json_too() -> None:
    with pytest.raises(InvalidEvent, match=r"lone surrogate U\+D800"):
        make_event('"\ud800"\t')


# -- the default encoding -----------------------------------------------------------------------------------

EASTERN = timezone(timedelta(hours=-5))
VALUES: list[Any] = [
    None,
    True,
    0,
    12345678901234567890,
    1.5,
    1e22,
    [],
    {},
    {"b": 1, "a": [2, {"d": None, "c": "ü€😀\u2028\0"}]},
    {2: "b", 1: "a"},
    ("tuple", 1),
    datetime(2026, 7, 28, 14, 5, 6, 789, tzinfo=UTC),
    datetime(2026, 7, 28, 14, 5, 6),
    datetime(2026, 7, 28, 23, 5, 6, tzinfo=EASTERN),
    date(2026, 7, 28),
    UUID("12345678-1234-5678-1234-567812345678"),
    Decimal("12.50"),
    Quote([1.0, 2.0]),
    Markup("<b>bold</b>"),
    {"when": date(2026, 1, 2), "quotes": [Quote([1.0])], "id": UUID(int=7)},
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_the_default_encoding_is_that_of_a_flask_app(value: Any) -> None:
    app = Flask(__name__)
    assert type(app.json) is DefaultJSONProvider
    assert flask_dumps(value) == app.json.dumps(value)


@pytest.mark.parametrize("value", [{1, 2}, object, {"a": 1, 2: "b"}, b"bytes"], ids=repr)
def test_what_a_flask_app_cannot_write_is_refused_too(value: Any) -> None:
    with pytest.raises(TypeError) as expected:
        Flask(__name__).json.dumps(value)
    with pytest.raises(TypeError) as caught:
        flask_dumps(value)
    assert str(caught.value) == str(expected.value)


@pytest.mark.parametrize("end", ["\t", "\t\t", " \t", "\n\t"])
def test_white_space_that_the_apps_dumps_adds_is_no_mark(end: str) -> None:
    event = make_event({"a": 1}, dumps=lambda value: json.dumps(value) + end)
    assert (event.data, event.encode()) == ('{"a": 1}', b'data: {"a": 1}\t\n\n')


def test_an_envelope_has_two_marks_and_what_looks_like_one_has_one() -> None:
    content = {"compressed": True, "encoding": "gzip+base64", "data": "x"}
    assert make_event(Envelope(content)).encode().endswith(b'"}\t\t\n\n')
    assert make_event(content).encode().endswith(b'"}\t\n\n')
    assert make_event(json.dumps(content)).encode().endswith(b'"}\n\n')
    # A string with both marks is written as a JSON string, which is no envelope.
    assert make_event(json.dumps(content) + PACKED).encode().endswith(b'\\t\\t"\t\n\n')
    assert unmarked(make_event(Envelope(content)).data + PACKED) == (
        json.dumps(content, sort_keys=True),
        True,
    )
