"""How a stream is read: WHATWG HTML, sections 9.2.5 and 9.2.6."""

from __future__ import annotations

from .case import LOST, Case, Report, message, stream

BOM = "\ufeff"
LONG = "x" * 2048


def reads(
    name: str, body: str | bytes | tuple[str | bytes, ...], *events: Report, types: tuple[str, ...] = ()
) -> Case:
    """Returns the case of a stream that ends after its body. The client reports the events and the loss."""
    pieces = body if isinstance(body, tuple) else (body,)
    return Case(name, (stream(*pieces),), (*events, LOST), types=("message", *types))


LINES = (
    reads("lines end with LF", "data: one\n\n", message("one")),
    reads("lines end with CR", "data: one\r\rdata: two\r\r", message("one"), message("two")),
    reads("lines end with CRLF", "data: one\r\n\r\ndata: two\r\n\r\n", message("one"), message("two")),
    reads(
        "line ends are mixed",
        "data: a\r\ndata: b\rdata: c\n\rdata: d\r\n\n",
        message("a\nb\nc"),
        message("d"),
    ),
    reads(
        "CRLF is one line end, LF CR are two",
        "data: a\r\ndata: b\n\rdata: c\n\n",
        message("a\nb"),
        message("c"),
    ),
    reads(
        "CRLF is cut in two",
        ("data: a\r", "\ndata: b\r\n", "\r", "\ndata: c\n\n"),
        message("a\nb"),
        message("c"),
    ),
    reads(
        "a piece begins with LF after an event", ("data: a\n\r", "\ndata: b\n\n"), message("a"), message("b")
    ),
    reads("an event ends with the last piece's CR", ("data: a\r\r",), message("a")),
    reads(
        "other line separators are data",
        "data: a\u2028b\u2029c\x0bd\x0ce\x85f\n\n",
        message("a\u2028b\u2029c\x0bd\x0ce\x85f"),
    ),
    reads(
        "a body arrives byte by byte",
        tuple(bytes([one]) for one in "id: é\ndata: ü€😀\n\n".encode()),
        message("ü€😀", "é"),
    ),
    reads("the body is empty", ""),
    reads("there are only empty lines", "\n\n\r\n\r\r\n"),
    reads("the last event has no empty line", "data: one\n\nid: 7\ndata: two\n", message("one")),
    reads("the last line has no end", "data: one\n\ndata: two", message("one")),
)

ENCODING = (
    reads(
        "one byte order mark is passed over",
        f"{BOM}data: one\n\n{BOM}data: two\n\ndata: three\n\n",
        message("one"),
        message("three"),
    ),
    reads("a second byte order mark is text", f"{BOM}{BOM}data: one\n\ndata: two\n\n", message("two")),
    reads("a byte order mark is cut in pieces", (b"\xef", b"\xbb", b"\xbfdata: one\n\n"), message("one")),
    reads("a byte order mark is data", f"data: {BOM}one\n\n", message(f"{BOM}one")),
    reads("a stream of a byte order mark alone", BOM),
    reads(
        "bytes that are no UTF-8 become U+FFFD",
        b"data: a\xffb\xc3\n\ndata: \xe2\x82\n\n",
        message("a\ufffdb\ufffd"),
        message("\ufffd"),
    ),
    reads("a byte order mark of UTF-16 is text", b"\xff\xfed\x00\n\ndata: one\n\n", message("one")),
    Case(
        "the charset of the answer does not matter",
        (stream("data: ok…\n\n", type="text/event-stream;charset=windows-1252"),),
        (message("ok…"), LOST),
    ),
)

FIELDS = (
    reads(
        "data of one, no and two lines",
        "data:\n\ndata\ndata\n\ndata:three\n\n",
        message(""),
        message("\n"),
        message("three"),
    ),
    reads("data without a colon is an empty line", "data\n\n", message("")),
    reads(
        "one space after the colon is passed over",
        "data:a\ndata: b\ndata:  c\ndata:\td\n\n",
        message("a\nb\n c\n\td"),
    ),
    reads("data of one space is empty", "data: \n\n", message("")),
    reads("spaces at the end are data", "data: a  \n\n", message("a  ")),
    reads("a colon may be in the data", "data: a:b: c\ndata::\n\n", message("a:b: c\n:")),
    reads(
        "names of fields are compared exactly",
        "Data: a\nDATA: b\n data: c\ndata : d\ndata\0: e\nda-ta: f\ndata: g\n\n",
        message("g"),
    ),
    reads(
        "unknown fields are passed over", "test: a\nda: b\ndata2: c\ndata: one\nretri: 1\n\n", message("one")
    ),
    reads("unknown fields alone are no event", "test: a\n\n:b\n\nfield\n\ndata: one\n\n", message("one")),
    reads(
        "comments are passed over",
        f"data: 1a\r:\0\n:\r\ndata: 2a\n:{LONG}\rdata: 3a\n:data: no\r: {LONG}\ndata: 4a\n\n",
        message("1a\n2a\n3a\n4a"),
    ),
    reads("a comment does not end an event", "data: a\n: b\ndata: c\n\n", message("a\nc")),
    reads("a comment is cut in pieces", (": a", "b\nda", "ta: one\n", "\n"), message("one")),
    reads("NUL is data", "data: a\0b\n\n", message("a\0b")),
    reads("data that looks like a field", "data: data: a\ndata: id: 7\n\n", message("data: a\nid: 7")),
    reads("a long line", f"data: {'ab' * 200_000}\n\n", message("ab" * 200_000)),
    reads("many lines", "data: a\n" * 2000 + "\n", message("\n".join(["a"] * 2000))),
)

TYPES = (
    reads(
        "an event has a type",
        "event: test\ndata: a\n\ndata: b\n\n",
        message("a", type="test"),
        message("b"),
        types=("test",),
    ),
    reads("an event without a type is a message", "data: a\n\n", message("a")),
    reads("an empty type is a message", "event: \ndata: a\n\nevent\ndata: b\n\n", message("a"), message("b")),
    reads("the type may be message", "event: message\ndata: a\n\n", message("a")),
    reads(
        "the last type counts",
        "event: a\nevent: test\ndata: b\n\n",
        message("b", type="test"),
        types=("a", "test"),
    ),
    reads(
        "an empty type takes a type back", "event: test\nevent:\ndata: b\n\n", message("b"), types=("test",)
    ),
    reads("a type counts for one event", "event: test\n\ndata: a\n\n", message("a"), types=("test",)),
    reads("a type without data is no event", "event: test\n\n", types=("test",)),
    reads(
        "types are compared exactly",
        "event: Test\ndata: a\n\nevent: test \ndata: b\n\ndata: c\n\n",
        message("b", type="test "),
        message("c"),
        types=("test", "test "),
    ),
    reads(
        "a type may be any text", "event: é 😀:x\ndata: a\n\n", message("a", type="é 😀:x"), types=("é 😀:x",)
    ),
    reads(
        "types with names of the browser's events",
        "event: open\ndata: a\n\nevent: error\ndata: b\n\n",
        message("a", type="open"),
        message("b", type="error"),
        types=("open", "error"),
    ),
    reads(
        "types with names of an object's properties",
        "event: toString\ndata: a\n\nevent: __proto__\ndata: b\n\n",
        message("a", type="toString"),
        message("b", type="__proto__"),
        types=("toString", "__proto__"),
    ),
    reads(
        "a type that nobody listens to is passed over", "event: other\ndata: a\n\ndata: b\n\n", message("b")
    ),
)
