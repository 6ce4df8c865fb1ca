"""Each field of an event: which values it accepts, and how an error names the field and the character."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from markupsafe import Markup

from flask_sse_push.errors import InvalidEvent
from flask_sse_push.protocol.channel import MAX_CHANNELS, checked_channel, checked_channels
from flask_sse_push.protocol.event import (
    MAX_EXCLUDED,
    MAX_RETRY_MS,
    MAX_TYPE,
    Event,
    checked_exclude,
    checked_once,
    checked_ttl,
    make_event,
)


class Text(str):
    """A string of an app's own class."""


# -- data ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["", "hello", "a\r\nb\rc\nd\n", "\0", "\u2028\u2029\x85\x0b\x0c", "\ufeff", " x", ":", "{}"]
)
def test_a_string_goes_out_as_it_is(text: str) -> None:
    assert make_event(text) == Event(text, None, None)


def test_a_string_of_another_class_becomes_a_plain_one() -> None:
    data = make_event(Text("hello")).data
    assert data == "hello"
    assert type(data) is str


class Element:
    """An element of a library that builds HTML, such as htpy."""

    def __html__(self) -> Markup:
        return Markup("<b>hello</b>")


@pytest.mark.parametrize("html", [Markup("<b>hello</b>"), Element()])
def test_html_goes_out_as_text(html: Any) -> None:
    data = make_event(html)
    assert data == Event("<b>hello</b>", None, None)
    assert type(data.data) is str


@pytest.mark.parametrize("value", [None, True, 0, 1.5, [], {"a": [1, None]}, ["é\u2028"], {"x": "\ud800"}])
def test_everything_else_goes_out_as_json(value: Any) -> None:
    assert json.loads(make_event(value).data) == value


def test_the_caller_chooses_how_json_is_written() -> None:
    assert make_event({"b": 1}, dumps=lambda value: f"<{value['b']}>").data == "<1>"


@pytest.mark.parametrize("value", [b"x", bytearray(b"x"), memoryview(b"x")])
def test_bytes_are_refused(value: Any) -> None:
    with pytest.raises(InvalidEvent, match=r"^data: is bytes; decode it, or encode it as base64 text$"):
        make_event(value)


def _circle() -> list[Any]:
    circle: list[Any] = []
    circle.append(circle)
    return circle


@pytest.mark.parametrize(
    ("value", "why"),
    [({1, 2}, "not JSON serializable"), (_circle(), "Circular"), ({(1, 2): 3}, "keys must be")],
)
def test_data_that_json_cannot_hold_is_refused_with_the_reason(value: Any, why: str) -> None:
    with pytest.raises(InvalidEvent, match=f"^data: cannot be written as JSON: .*{why}") as caught:
        make_event(value)
    assert isinstance(caught.value.__cause__, (TypeError, ValueError))


@pytest.mark.parametrize(("text", "shown", "at"), [("\ud800", "U\\+D800", 0), ("ab\udfffc", "U\\+DFFF", 2)])
def test_a_lone_surrogate_in_the_data_is_named_with_its_place(text: str, shown: str, at: int) -> None:
    with pytest.raises(InvalidEvent, match=f"^data: has a lone surrogate {shown} at {at}; not UTF-8$"):
        make_event(text)
    with pytest.raises(InvalidEvent, match=f"^data: has a lone surrogate {shown} at {at}; not UTF-8$"):
        make_event(object(), dumps=lambda value: text)


# -- type ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "type",
    [
        "x",
        "a b",
        " ",
        "sse",
        "SSE.open",
        "x.sse.",
        "a:b",
        "\u2028",
        "é😀",
        "**",
        "a*",
        "\ufeff",
        "x" * MAX_TYPE,
    ],
)
def test_a_type_may_be_any_line_of_text(type: str) -> None:
    assert make_event("", type).type == type


@pytest.mark.parametrize(
    ("type", "shown", "at"),
    [
        ("\n", "U\\+000A", 0),
        ("a\rb", "U\\+000D", 1),
        ("a\r\ndata: x", "U\\+000D", 1),
        ("abc\0", "U\\+0000", 3),
        ("a\ud83d", "U\\+D83D", 1),
        ("sse.\n", "U\\+000A", 4),
        ("x" * 300 + "\n", "U\\+000A", 300),
        ("\t", "U\\+0009", 0),
        ("a\x1b[2J", "U\\+001B", 1),
        ("\x7f", "U\\+007F", 0),
        ("\x9b2J", "U\\+009B", 0),
    ],
)
def test_a_character_that_a_type_cannot_have_is_named_with_its_place(type: str, shown: str, at: int) -> None:
    with pytest.raises(InvalidEvent, match=f"^type: has the forbidden character {shown} at {at}$") as caught:
        make_event("", type)
    assert caught.value.field == "type"


@pytest.mark.parametrize("type", ["sse.", "sse.open", "sse.anything"])
def test_the_protocols_own_types_are_refused(type: str) -> None:
    with pytest.raises(
        InvalidEvent, match=f"^type: '{type}' begins with 'sse.', which is reserved for the protocol"
    ):
        make_event("", type)


def test_the_word_for_all_types_is_no_type() -> None:
    # A handler for "*" would get such an event twice.
    with pytest.raises(InvalidEvent, match=r"^type: is '\*', which means events of every type"):
        make_event("", "*")


@pytest.mark.parametrize("type", ["", "x" * (MAX_TYPE + 1)])
def test_a_type_has_a_length(type: str) -> None:
    with pytest.raises(InvalidEvent, match=f"^type: has {len(type)} characters, must have 1 to {MAX_TYPE}$"):
        make_event("", type)


@pytest.mark.parametrize("type", [1.5, b"x", ["x"], False])
def test_a_type_is_a_string(type: Any) -> None:
    with pytest.raises(InvalidEvent, match=r"^type: is .*, must be a string$"):
        make_event("", type)


# -- retry --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("retry", [0, 1, MAX_RETRY_MS])
def test_retry_is_milliseconds(retry: int) -> None:
    assert make_event("", retry=retry).retry_ms == retry


@pytest.mark.parametrize(
    "retry", [-1, MAX_RETRY_MS + 1, 1.5, "1000", True, float("nan"), pytest.param(10**5000, id="huge")]
)
def test_retry_outside_its_range_is_refused(retry: Any) -> None:
    with pytest.raises(InvalidEvent, match=f"^retry: is .*, must be milliseconds from 0 to {MAX_RETRY_MS}$"):
        make_event("", retry=retry)


# -- channels -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sse", "user:7", "a/b.c-d_e@f", "A", "0", "x" * 200])
def test_a_channel_name_in_the_grammar_is_accepted(name: str) -> None:
    assert checked_channel(name) == name
    assert checked_channels(name) == (name,)


@pytest.mark.parametrize(
    ("name", "shown", "at"),
    [
        ("*", "U\\+002A", 0),
        ("a b", "U\\+0020", 1),
        ("a\n", "U\\+000A", 1),
        ("a\r\ndata: x", "U\\+000D", 1),
        ("\0", "U\\+0000", 0),
        ("a,b", "U\\+002C", 1),
        ("é", "U\\+00E9", 0),
        ("news\u0661", "U\\+0661", 4),
        ("{x}", "U\\+007B", 0),
        ("😀", "U\\+1F600", 0),
        ("\ud800", "U\\+D800", 0),
        ("x" * 200 + " ", "U\\+0020", 200),
    ],
)
def test_a_character_outside_the_channel_grammar_is_named_with_its_place(
    name: str, shown: str, at: int
) -> None:
    expected = (
        f"^channel: has the forbidden character {shown} at {at}; allowed are A-Z a-z 0-9 _ : . / @ -(; '|$)"
    )
    with pytest.raises(InvalidEvent, match=expected) as caught:
        checked_channel(name)
    assert caught.value.field == "channel"


@pytest.mark.parametrize("name", ["", "x" * 201, "x" * 201 + " "])
def test_a_channel_name_has_a_length(name: str) -> None:
    with pytest.raises(InvalidEvent, match=f"^channel: has {len(name)} characters, must have 1 to 200$"):
        checked_channel(name)


@pytest.mark.parametrize("name", [7.5, None, b"sse"])
def test_a_channel_name_is_a_string(name: Any) -> None:
    with pytest.raises(InvalidEvent, match=r"^channel: is .*, must be a string$"):
        checked_channel(name)


def test_several_channels_keep_their_order_and_lose_repeats() -> None:
    assert checked_channels(["b", "a", "b"]) == ("b", "a")
    assert checked_channels(name for name in ("x", "y")) == ("x", "y")


def test_one_publish_names_at_least_one_channel_and_not_too_many() -> None:
    names = [f"c{at}" for at in range(MAX_CHANNELS + 1)]
    assert len(checked_channels(names[:MAX_CHANNELS])) == MAX_CHANNELS
    for wrong in ([], names):
        with pytest.raises(
            InvalidEvent, match=f"^channel: {len(wrong)} names given, must be 1 to {MAX_CHANNELS}$"
        ):
            checked_channels(wrong)


def test_one_bad_name_among_several_refuses_them_all() -> None:
    with pytest.raises(
        InvalidEvent, match=r"^channel\[1\]: has the forbidden character U\+0020 at 3"
    ) as caught:
        checked_channels(["good", "bad name"])
    assert (caught.value.field, caught.value.at) == ("channel", 1)
    with pytest.raises(InvalidEvent, match=r"^channels\[2\]: is None, must be a string"):
        checked_channels(["a", "b", None], field="channels")  # type: ignore[list-item]


# -- the idempotency id -------------------------------------------------------------------------------------


@pytest.mark.parametrize("id", ["1", "order:17.paid-2_A", "x" * 128])
def test_an_id_in_the_grammar_is_accepted(id: str) -> None:
    assert checked_once(id) == id


@pytest.mark.parametrize(
    ("id", "problem"),
    [
        ("a\nb", r"has the forbidden character U\+000A at 1; allowed are A-Z a-z 0-9 \. _ : -"),
        ("~x", r"has the forbidden character U\+007E at 0"),
        ("a/b", r"has the forbidden character U\+002F at 1"),
        ("", "has 0 characters, must have 1 to 128"),
        ("x" * 129, "has 129 characters, must have 1 to 128"),
        (1.5, "is 1.5, must be a string"),
    ],
)
def test_an_id_outside_the_grammar_is_refused_with_the_reason(id: Any, problem: str) -> None:
    with pytest.raises(InvalidEvent, match=f"^id: {problem}") as caught:
        checked_once(id)
    assert caught.value.field == "id"


# -- exclude and ttl ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exclude", "names"),
    [
        (None, ()),
        ("me", ("me",)),
        (7, ("7",)),
        ([7, "you"], ("7", "you")),
        ((), ()),
        ({"one"}, ("one",)),
        ("", ("",)),
        ("x" * 200, ("x" * 200,)),
    ],
)
def test_excluded_ids_become_text(exclude: object, names: tuple[str, ...]) -> None:
    assert checked_exclude(exclude) == names


@pytest.mark.parametrize(
    ("exclude", "place"),
    [
        ("\udc00", ""),
        (["fine", "x" * 201], "[1]"),
        ([None], "[0]"),
        (object(), ""),
        (b"me", ""),
        ([True], "[0]"),
    ],
)
def test_an_excluded_id_must_be_a_short_id(exclude: object, place: str) -> None:
    problem = "('.*' must be UTF-8 text of at most 200 characters|is .*, must be the id of a user)"
    with pytest.raises(InvalidEvent, match=f"^exclude{re.escape(place)}: {problem}") as caught:
        checked_exclude(exclude)
    assert caught.value.field == "exclude"
    assert len(str(caught.value)) < 200


def test_only_so_many_ids_can_be_excluded() -> None:
    assert len(checked_exclude(range(MAX_EXCLUDED))) == MAX_EXCLUDED
    expected = f"^exclude: {MAX_EXCLUDED + 1} ids given, must be at most {MAX_EXCLUDED}$"
    with pytest.raises(InvalidEvent, match=expected):
        checked_exclude(range(MAX_EXCLUDED + 1))


@pytest.mark.parametrize(("ttl", "seconds"), [(None, None), (0, 0.0), (1.5, 1.5), (10**8, 1e8)])
def test_a_time_to_live_is_seconds(ttl: float | None, seconds: float | None) -> None:
    checked = checked_ttl(ttl)
    assert checked == seconds
    assert checked is None or isinstance(checked, float)


@pytest.mark.parametrize(
    "ttl", [-0.1, 10**8 + 1, float("nan"), float("inf"), "5", True, pytest.param(10**5000, id="huge")]
)
def test_a_time_to_live_outside_its_range_is_refused(ttl: Any) -> None:
    with pytest.raises(InvalidEvent, match=r"^ttl: is .*, must be seconds from 0 to 10\*\*8$"):
        checked_ttl(ttl)
