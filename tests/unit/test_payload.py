"""Payload envelopes: values come back equal, only text that shrinks is packed, and memory is bounded."""

from __future__ import annotations

import base64
import gzip
import json
import os
import shutil
import subprocess
import tracemalloc
import zlib
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_sse_push import InvalidEvent, InvalidPayload, MessageAnnouncer, MessageTooLarge, payload
from flask_sse_push.brokers.memory import MemoryBroker
from flask_sse_push.config import Settings
from flask_sse_push.protocol.channel import BROADCAST
from tests.support.policies import keeping

ROWS = [{"symbol": "ACME", "price": n, "note": "as before"} for n in range(100)]


def envelope(data: object) -> dict[str, object]:
    return {"compressed": True, "encoding": "gzip+base64", "data": data}


def packed(text: bytes) -> dict[str, object]:
    return envelope(base64.b64encode(gzip.compress(text, mtime=0)).decode())


# -- there and back ------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=40),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=10), inner),
)
lookalikes = st.builds(envelope, json_values)
repeated = st.builds(lambda value, times: [value] * times, json_values, st.integers(0, 300))


@given(json_values | lookalikes | repeated, st.integers(0, 2000))
def test_a_compressed_value_comes_back(value: Any, threshold: int) -> None:
    wrapped = payload.compress(value, threshold)
    assert payload.decompress(wrapped) == value
    assert json.loads(json.dumps(wrapped)) == wrapped


def test_the_envelope_is_marked_and_any_gzip_reads_it() -> None:
    wrapped = payload.compress(ROWS)
    assert wrapped.keys() == {"compressed", "encoding", "data"}
    assert (wrapped["compressed"], wrapped["encoding"]) == (True, "gzip+base64")
    assert json.loads(gzip.decompress(base64.b64decode(wrapped["data"]))) == ROWS
    assert len(json.dumps(wrapped)) < len(json.dumps(ROWS)) / 4


def test_the_same_text_gives_the_same_envelope() -> None:
    assert payload.compress(ROWS) == payload.compress(list(ROWS))


@pytest.mark.parametrize(
    "value",
    ["x" * 1022, {"small": True}, None, base64.b64encode(os.urandom(3000)).decode()],
    ids=["at the threshold", "short", "nothing", "does not shrink"],
)
def test_short_text_and_text_that_does_not_shrink_stay_as_they_are(value: Any) -> None:
    assert payload.compress(value) is value


def test_one_byte_over_the_threshold_is_compressed() -> None:
    assert payload.compress("x" * 1023) == payload.compress("x" * 1023, threshold=0) != "x" * 1023
    assert payload.compress([0] * 100, threshold=50) != [0] * 100


def test_characters_count_as_their_bytes() -> None:
    text = json.dumps
    assert payload.compress("€" * 400, dumps=lambda obj: text(obj, ensure_ascii=False)) != "€" * 400


def test_an_app_may_bring_its_own_json() -> None:
    wrapped = payload.compress([date(2026, 1, 1)] * 200, dumps=lambda obj: json.dumps(obj, default=str))
    assert payload.decompress(wrapped) == ["2026-01-01"] * 200
    assert (
        payload.decompress(payload.compress([date(2026, 1, 1)] * 200))[0] == "Thu, 01 Jan 2026 00:00:00 GMT"
    )
    with pytest.raises(TypeError):
        payload.compress({1, 2})


def test_numbers_that_json_does_not_have_are_refused() -> None:
    with pytest.raises(InvalidEvent, match=r"data\[1\] is Infinity, which JSON does not have"):
        payload.compress([1, float("inf")])


@pytest.mark.parametrize(
    "value",
    [
        {"compressed": True, "data": "H4sI"},
        {"compressed": "yes", "encoding": "gzip+base64", "data": ""},
        {"compressed": True, "encoding": "br", "data": ""},
        {**envelope(""), "more": 1},
        [envelope("")],
        "H4sI",
        None,
    ],
)
def test_other_values_are_returned_as_they_are(value: Any) -> None:
    assert payload.decompress(value) is value


def test_a_string_that_is_no_json_comes_back_as_a_string() -> None:
    assert payload.decompress(packed("plain text, ünpacked".encode())) == "plain text, ünpacked"
    assert payload.decompress(packed(b"[" * 100_000)) == "[" * 100_000


# -- what is broken ------------------------------------------------------------------------------------------

GOOD = gzip.compress(b'"x"', mtime=0)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (None, "its data is NoneType"),
        (["H4sI"], "its data is list"),
        ("!!!", "cannot be read"),
        ("H4sI€", "cannot be read"),
        ("H4s", "cannot be read"),
        (base64.b64encode(b"no gzip").decode(), "cannot be read"),
        (base64.b64encode(zlib.compress(b'"x"')).decode(), "cannot be read"),
        (base64.b64encode(GOOD[:-9]).decode(), "too early or too late"),
        (base64.b64encode(GOOD[:-1]).decode(), "too early or too late"),
        (base64.b64encode(GOOD + b"more").decode(), "too early or too late"),
        (base64.b64encode(GOOD[:-8] + b"\0" * 8).decode(), "cannot be read"),
        (base64.b64encode(gzip.compress(b"\xff", mtime=0)).decode(), "cannot be read"),
        ("", "too early or too late"),
    ],
)
def test_a_broken_envelope_is_refused_with_what_is_wrong(data: object, problem: str) -> None:
    with pytest.raises(InvalidPayload, match=problem) as raised:
        payload.decompress(envelope(data))
    assert problem in raised.value.problem


def test_unpacking_stops_at_the_cap() -> None:
    deflate = zlib.compressobj(9, wbits=31)
    bomb = b"".join([*(deflate.compress(b"0" * 1_000_000) for _ in range(200)), deflate.flush()])
    wrapped = envelope(base64.b64encode(bomb).decode())
    tracemalloc.start()
    try:
        with pytest.raises(InvalidPayload, match="more than 10000000 bytes"):
            payload.decompress(wrapped)
        assert tracemalloc.get_traced_memory()[1] < 3 * payload.MAX_TEXT
    finally:
        tracemalloc.stop()


def test_the_cap_is_exact_and_may_be_set() -> None:
    wrapped = packed(b"1234567")
    assert payload.decompress(wrapped, max_bytes=7) == 1234567
    with pytest.raises(InvalidPayload, match="more than 6 bytes"):
        payload.decompress(wrapped, max_bytes=6)


def test_nothing_is_packed_that_could_not_be_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload, "MAX_TEXT", 2000)
    assert payload.compress("x" * 1997) != "x" * 1997
    assert payload.compress("x" * 1998) == "x" * 1998


# -- published -----------------------------------------------------------------------------------------------


class Publishing:
    """An announcer, and its events as clients get them."""

    def __init__(self, **settings: Any) -> None:
        self.broker = MemoryBroker(keeping(1000, 3600))
        self.announcer = MessageAnnouncer(self.broker, Settings(**settings))

    def data(self, channel: str = "sse") -> Any:
        entry = self.broker.history({channel: 0}, "nobody").channels[channel].entries[-1]
        lines = [line for line in entry.frame.decode().split("\n") if line.startswith("data: ")]
        text = "\n".join(line.removeprefix("data: ") for line in lines)
        try:
            return json.loads(text)
        except ValueError:
            return text


def in_a_batch(announcer: MessageAnnouncer) -> None:
    with announcer.batch() as batch:
        batch.publish(ROWS, compress="auto")


Publish = Callable[[MessageAnnouncer], object]
METHODS: dict[str, tuple[Publish, str]] = {
    "publish": (lambda announcer: announcer.publish(ROWS, compress="auto"), "sse"),
    "publish_many": (lambda a: a.publish_many([{"data": ROWS, "compress": "auto"}]), "sse"),
    "batch": (in_a_batch, "sse"),
    "send_to_user": (lambda a: a.send_to_user(7, ROWS, compress="auto"), "user:7"),
    "broadcast": (lambda announcer: announcer.broadcast(ROWS, compress="auto"), BROADCAST),
}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_of_publishing_can_compress(name: str) -> None:
    publish, channel = METHODS[name]
    publishing = Publishing()
    publish(publishing.announcer)
    seen = publishing.data(channel)
    assert payload.is_envelope(seen)
    assert payload.decompress(seen) == ROWS


def test_nothing_is_compressed_by_default() -> None:
    publishing = Publishing()
    publishing.announcer.publish(ROWS)
    assert publishing.data() == ROWS
    publishing.announcer.publish({"short": 1}, compress="auto")
    assert publishing.data() == {"short": 1}


def inflated(envelope: Any) -> str:
    return gzip.decompress(base64.b64decode(envelope["data"])).decode()


def test_an_envelope_has_the_text_with_the_mark_of_json() -> None:
    publishing = Publishing()
    publishing.announcer.publish(ROWS, compress="auto")
    assert inflated(publishing.data()) == json.dumps(ROWS, sort_keys=True) + "\t"
    assert inflated(payload.compress(ROWS)) == json.dumps(ROWS, sort_keys=True) + "\t"
    publishing.announcer.publish("7" * 2000, compress="auto")
    assert inflated(publishing.data()) == "7" * 2000
    publishing.announcer.publish("7" * 2000 + "\t", compress="auto")
    assert inflated(publishing.data()) == json.dumps("7" * 2000 + "\t") + "\t"


def test_the_mark_does_not_count_for_the_threshold() -> None:
    publishing = Publishing()
    publishing.announcer.publish(["x" * 1020], compress="auto")
    assert publishing.data() == ["x" * 1020]
    publishing.announcer.publish(["x" * 1021], compress="auto")
    assert payload.decompress(publishing.data()) == ["x" * 1021] != publishing.data()


def test_a_string_is_packed_as_the_text_it_is() -> None:
    publishing = Publishing()
    publishing.announcer.publish('{"json": "text"} ' * 200, compress="auto")
    assert payload.decompress(publishing.data()) == '{"json": "text"} ' * 200
    publishing.announcer.publish(json.dumps(ROWS), compress="auto")
    assert payload.decompress(publishing.data()) == ROWS  # as a client reads the same text in data: lines


def test_line_ends_are_the_same_with_and_without_an_envelope() -> None:
    publishing = Publishing()
    text = "one\r\ntwo\rthree\nfour\u2028" * 100
    publishing.announcer.publish(text)
    plain = publishing.data()
    publishing.announcer.publish(text, compress="auto")
    assert payload.decompress(publishing.data()) == plain


def test_the_size_that_counts_is_the_one_on_the_wire() -> None:
    publishing = Publishing(max_message=2000)
    publishing.announcer.publish(ROWS, compress="auto")
    with pytest.raises(MessageTooLarge):
        publishing.announcer.publish(ROWS)


def test_a_wrong_option_is_named() -> None:
    with pytest.raises(InvalidEvent, match="compress: is 'gzip', must be 'auto' or None"):
        Publishing().announcer.publish("x", compress="gzip")


# -- decoded by others ---------------------------------------------------------------------------------------

INFLATE = """
const {data} = JSON.parse(require('fs').readFileSync(0))
const bytes = Uint8Array.from(atob(data), character => character.charCodeAt(0))
const inflated = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'))
new Response(inflated).text().then(text => process.stdout.write(text))
"""


def test_javascripts_own_decompression_stream_reads_it() -> None:
    node = shutil.which("node")
    if node is None:
        if os.environ.get("CI"):
            pytest.fail("node is not installed")
        pytest.skip("node is not installed")
    wrapped = json.dumps(payload.compress([*ROWS, "ünï€😀"]))
    done = subprocess.run(
        [node, "-e", INFLATE], input=wrapped, capture_output=True, text=True, timeout=180, check=True
    )
    assert json.loads(done.stdout) == [*ROWS, "ünï€😀"]
