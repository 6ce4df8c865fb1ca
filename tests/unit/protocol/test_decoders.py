"""Clients see the events that were published: four decoders of other projects read the bytes."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import httpx
import httpx_sse
import pytest
import sseclient
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_sse_push.errors import InvalidEvent
from flask_sse_push.protocol.channel import checked_channel, checked_channels
from flask_sse_push.protocol.cursor import MAX_ID, Cursor
from flask_sse_push.protocol.entry import Entry, Publication, event_frame, stored_form
from flask_sse_push.protocol.event import (
    MAX_RETRY_MS,
    MAX_TYPE,
    RESERVED,
    checked_exclude,
    checked_once,
    make_event,
)
from flask_sse_push.protocol.frames import comment, control_frame, retry_line
from tests.support.processes import ROOT, need

JS = ROOT / "tests" / "js"
EVENTS_A_BATCH = 10
BATCHES = 250

Chunks = list[bytes]


class Seen(NamedTuple):
    """An event as a decoder returns it."""

    type: str
    data: str
    id: str | None
    retry_ms: int | None


# -- the decoders -------------------------------------------------------------------------------------------


class Decoder(Protocol):
    """Reads event streams, each given as its chunks."""

    def __call__(self, streams: Sequence[Chunks]) -> list[list[Seen]]: ...


def read_by_httpx_sse(streams: Sequence[Chunks]) -> list[list[Seen]]:
    """Reads with httpx-sse as applications use it: over a response, whose text httpx decodes."""

    def read(chunks: Chunks) -> list[Seen]:
        headers = {"Content-Type": "text/event-stream; charset=utf-8"}
        response = httpx.Response(200, headers=headers, content=iter(chunks))
        events = httpx_sse.EventSource(response).iter_sse()
        return [Seen(event.event, event.data, event.id, event.retry) for event in events]

    return [read(chunks) for chunks in streams]


def read_by_sseclient(streams: Sequence[Chunks]) -> list[list[Seen]]:
    """Reads with sseclient-py, which leaves `retry` as text."""

    def read(chunks: Chunks) -> list[Seen]:
        return [
            Seen(event.event, event.data, event.id, None if event.retry is None else int(event.retry))
            for event in sseclient.SSEClient(iter(chunks)).events()
        ]

    return [read(chunks) for chunks in streams]


class NodeDecoder:
    """A decoder from npm, in one Node process that replies line by line."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def __call__(self, streams: Sequence[Chunks]) -> list[list[Seen]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = [[base64.b64encode(chunk).decode() for chunk in chunks] for chunks in streams]
        self._process.stdin.write(json.dumps(asked).encode() + b"\n")
        self._process.stdin.flush()
        answer: list[dict[str, Any]] = json.loads(self._process.stdout.readline())
        assert [stream["errors"] for stream in answer] == [[]] * len(streams)
        return [
            [Seen(event["type"], event["data"], event["id"], event["retry"]) for event in stream["events"]]
            for stream in answer
        ]


@contextmanager
def in_node(package: str) -> Iterator[NodeDecoder]:
    """Without Node or the package, the test is skipped on a developer's machine and fails in CI."""
    node = need("node")
    if not (JS / "node_modules" / package).is_dir():
        message = f"{package} is not installed; run `npm install` in tests/js"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    command = [node, "decode.mjs", package]
    with subprocess.Popen(command, cwd=JS, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield NodeDecoder(process)


DECODERS = ["httpx-sse", "sseclient-py", "eventsource-parser", "undici"]


@pytest.fixture(scope="module", params=DECODERS)
def decode(request: pytest.FixtureRequest) -> Iterator[Decoder]:
    here: dict[str, Decoder] = {"httpx-sse": read_by_httpx_sse, "sseclient-py": read_by_sseclient}
    if request.param in here:
        yield here[request.param]
        return
    with in_node(request.param) as decoder:
        yield decoder


# -- what is published --------------------------------------------------------------------------------------


class Published(NamedTuple):
    """An event as an app publishes it, with the cursor that the broker gave it."""

    data: str
    type: str | None
    retry: int | None
    cursor: Cursor

    def encoded(self) -> bytes:
        return event_frame(str(self.cursor), make_event(self.data, self.type, retry=self.retry).encode())

    def expected(self) -> Seen:
        """WHATWG HTML, 9.2.6: each of the three line ends is one LF in the data; nothing else changes."""
        data = re.sub("\r\n|\r", "\n", self.data)
        return Seen(self.type or "message", data, str(self.cursor), self.retry)


# What other encoders and decoders stumble over: line ends of every kind, also those that only Python's
# str.splitlines() takes for one, characters that are stripped or end C strings, and the format's own words.
TRICKY = [
    *("\n", "\r", "\r\n", "\n\n", "\r\r", "\r\n\r\n", "\n\r"),
    *("\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e"),
    *("\0", "\ufeff", "\t", " ", "  ", "\xa0", "\u200d", "\uffff", "é", "€", "😀", "x"),
    *(":", ": ", "data:", "data: x", "data", "id:", "id: evil", "retry: 1", "event: evil"),
    "\n\nevent: evil\ndata: evil\n\n",
]
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
data = st.lists(st.one_of(st.sampled_from(TRICKY), text), max_size=8).map("".join)
# sseclient-py copies an event's bytes again for each of its lines: long lines keep that in bounds.
big_data = st.builds(
    lambda piece, letter, length: ((piece + letter * 300) * (length // 300))[:length],
    data,
    st.sampled_from("x \0€"),
    st.integers(10_000, 100_000),
)
one_line = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="*"), max_size=MAX_TYPE)
types = st.one_of(
    st.none(),
    st.sampled_from(["message", "update", " ", " x ", "a:b", ":", "data", "\u2028", "\ufeffx", "sse"]),
    one_line.filter(lambda type: type != "" and not type.startswith(RESERVED)),
)
retries = st.one_of(st.none(), st.integers(0, MAX_RETRY_MS))
cursors = st.builds(Cursor, st.text("0123456789abcdef", min_size=8, max_size=8), st.integers(0, MAX_ID))


def batches(content: st.SearchStrategy[str], size: int) -> st.SearchStrategy[list[Published]]:
    return st.lists(st.builds(Published, content, types, retries, cursors), min_size=size, max_size=size)


def cut(stream: bytes, places: Sequence[int]) -> Chunks:
    """The stream in chunks that end at these places."""
    ends = sorted({place % len(stream) for place in places} - {0})
    return [stream[start:end] for start, end in zip([0, *ends], [*ends, len(stream)], strict=True)]


places = st.lists(st.integers(0, 200_000), max_size=20)


def test_every_decoder_sees_the_published_events() -> None:
    checked = 0

    @settings(max_examples=BATCHES, deadline=None)
    @given(batches(data, EVENTS_A_BATCH), places)
    def check(batch: list[Published], places: list[int]) -> None:
        nonlocal checked
        checked += len(batch)
        stream = b"".join(each.encoded() for each in batch)
        expected = [each.expected() for each in batch]
        for decode in decoders:
            assert decode([cut(stream, places)]) == [expected], decode

    with in_node("eventsource-parser") as parser, in_node("undici") as undici:
        decoders: list[Decoder] = [read_by_httpx_sse, read_by_sseclient, parser, undici]
        check()
    assert checked >= 2000


def test_every_decoder_sees_events_of_up_to_100_kilobytes(decode: Decoder) -> None:
    @settings(max_examples=25, deadline=None)
    @given(batches(big_data, 2), places)
    def check(batch: list[Published], places: list[int]) -> None:
        stream = b"".join(each.encoded() for each in batch)
        assert decode([cut(stream, places)]) == [[each.expected() for each in batch]]

    check()


@pytest.mark.parametrize("data", ["x" * 100_000, "\0" * 100_000, "€" * 33_000, "\r\n" * 3000, "\r" * 3000])
def test_every_decoder_sees_long_runs_of_one_character(decode: Decoder, data: str) -> None:
    event = Published(data, None, None, Cursor("ab", 1))
    assert decode([[event.encoded()]]) == [[event.expected()]]


SAMPLE = [
    Published(data, type, retry, Cursor("0badcafe", MAX_ID - at))
    for at, (data, type, retry) in enumerate(
        [
            ("", None, None),
            ("", "empty", 0),
            ("\n", None, None),
            ("hello", None, None),
            ('{"a": [1, "é"]}', "update", 1500),
            ("a\r\nb\rc\nd\n", None, None),
            ("\r\r\n\n\r", "ends", None),
            (" leading and trailing ", " type ", None),
            (":colon: ", ":", None),
            ("\ufeffBOM\ufeff", "\ufefft", None),
            ("nul\0nul", None, MAX_RETRY_MS),
            ("\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e", "\u2028", None),
            ("😀€é\uffff", "😀", None),
            ("\n\nevent: evil\ndata: evil\n\n", None, None),
            ("x\rid: evil\rretry: 1", "data: x", None),
        ]
    )
]


def test_bytes_may_be_split_anywhere(decode: Decoder) -> None:
    for first, second in zip(SAMPLE, SAMPLE[1:] + SAMPLE[:1], strict=True):
        stream = first.encoded() + second.encoded()
        splits = [[stream[:at], stream[at:]] for at in range(1, len(stream))]
        splits.append([stream[at : at + 1] for at in range(len(stream))])
        expected = [first.expected(), second.expected()]
        for chunks, seen in zip(splits, decode(splits), strict=True):
            assert seen == expected, chunks


# sseclient-py hands out what it has when the stream ends, where WHATWG says to discard it: its users may see
# an event cut short, whatever a server does.
@pytest.mark.parametrize("decode", ["httpx-sse", "eventsource-parser", "undici"], indirect=True)
def test_a_stream_that_is_cut_off_never_shows_half_an_event(decode: Decoder) -> None:
    for event in SAMPLE:
        stream = event.encoded()
        cuts = [[stream[:end]] for end in range(1, len(stream))]
        assert decode(cuts) == [[]] * len(cuts)


def test_every_decoder_reads_the_protocols_own_events(decode: Decoder) -> None:
    stream = (
        retry_line(2500)
        + control_frame("sse.open", {"channels": ["a\u2028\n"]}, "ab-1", 1500)
        + comment("waiting\ndata: x")
        + SAMPLE[3].encoded()
        + control_frame("sse.close", {"reason": "drain"}, retry_ms=7)
    )
    seen = decode([[stream]])[0]
    if decode is read_by_httpx_sse:
        # httpx-sse hands out an event without data at a blank line that follows a lone `retry:` or, once it
        # has an id, a comment. WHATWG says that an empty data buffer is no event.
        seen = [event for event in seen if event.data]
    assert [event.type for event in seen] == ["sse.open", "message", "sse.close"]
    assert json.loads(seen[0].data) == {"channels": ["a\u2028\n"]}
    assert seen[0].id == "ab-1"
    assert [event.retry_ms for event in seen] == [1500, None, 7]


# -- nothing can be injected --------------------------------------------------------------------------------

FORBIDDEN_IN_TYPE = st.sampled_from(["\r", "\n", "\0", "\r\n", "\x1b", "\x9b", "\x7f", "\ud800", "\udfff"])
CONTROL = re.compile("[\0-\x1f\x7f-\x9f]")


def name(character: str) -> str:
    return f"U+{ord(character):04X}"


@given(data, st.characters(categories=["Cs"]), data)
def test_a_lone_surrogate_in_the_data_is_refused(before: str, surrogate: str, after: str) -> None:
    with pytest.raises(InvalidEvent) as caught:
        make_event(before + surrogate + after)
    assert caught.value.field == "data"
    assert f"{name(surrogate)} at {len(before)};" in caught.value.problem


@given(text.filter(lambda text: not CONTROL.search(text)), FORBIDDEN_IN_TYPE, data)
def test_a_type_with_a_control_character_or_a_surrogate_is_refused(before: str, bad: str, after: str) -> None:
    with pytest.raises(InvalidEvent) as caught:
        make_event("", before + bad + after)
    assert caught.value.field == "type"
    assert caught.value.problem == f"has the forbidden character {name(bad[0])} at {len(before)}"


def test_any_text_as_a_type_is_refused_or_arrives_whole(decode: Decoder) -> None:
    @settings(deadline=None)
    @given(st.one_of(data, one_line), data)
    def check(type: str, data: str) -> None:
        if not 0 < len(type) <= MAX_TYPE or type.startswith(RESERVED) or type == "*" or CONTROL.search(type):
            with pytest.raises(InvalidEvent, match=r"^type: "):
                make_event(data, type)
            return
        seen = decode([[event_frame("ab-1", make_event(data, type).encode())]])[0]
        assert [(each.type, each.id) for each in seen] == [(type, "ab-1")]

    check()


@given(st.one_of(data, st.text(st.characters())))
def test_any_text_as_a_channel_or_an_id_is_refused_or_in_the_grammar(text: str) -> None:
    for check, field, grammar in (
        (checked_channel, "channel", r"[A-Za-z0-9_:./@-]{1,200}"),
        (checked_once, "id", r"[A-Za-z0-9._:-]{1,128}"),
    ):
        if re.fullmatch(grammar, text, re.ASCII):
            assert check(text) == text
            continue
        with pytest.raises(InvalidEvent) as caught:
            check(text)
        assert caught.value.field == field
        bad = re.search(grammar[: grammar.index("]")].replace("[", "[^") + "]", text[:129])
        if bad:
            assert f"{name(bad[0])} at {bad.start()};" in caught.value.problem


@settings(deadline=None)
@given(
    st.builds(Published, data, types, retries, cursors.filter(lambda cursor: cursor.id > 0)),
    st.lists(st.text("ab:/.@-_", min_size=1, max_size=5), min_size=1, max_size=4),
    st.lists(data.filter(lambda text: 0 < len(text) <= 200), max_size=3),
    st.integers(0, MAX_ID),
)
def test_a_stored_entry_has_the_frame_of_the_published_event(
    event: Published, channels: list[str], exclude: list[str], prev: int
) -> None:
    body = make_event(event.data, event.type, retry=event.retry).encode()
    publication = Publication(body, checked_channels(channels), checked_exclude(exclude), None)
    entry = Entry.parse(stored_form(event.cursor.epoch, event.cursor.id, prev, publication))
    assert entry.frame == event.encoded()
    assert (entry.epoch, entry.id, entry.prev) == (*event.cursor, prev)
    assert entry.exclude == frozenset(exclude)
    assert entry.shared is (len(set(channels)) > 1)
