"""How the commands print what others wrote."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from flask_sse_push.cli.common import MAX_LINE, entry_fields, errors_without_traceback, one_line, say
from flask_sse_push.errors import BrokerUnavailable
from flask_sse_push.protocol.entry import Entry


def test_a_line_is_short_and_has_no_control_character() -> None:
    assert one_line("a\x1b[2Jb\nc") == "a\\x1b[2Jb\\nc"
    assert one_line("東" * (MAX_LINE + 1)) == "東" * MAX_LINE + "…"


@pytest.mark.parametrize(
    ("charset", "shown"), [("utf-8", "東…\\x1b\\ud800"), ("ascii", "\\u6771\\u2026\\x1b\\ud800")]
)
def test_what_the_terminals_encoding_does_not_have_is_escaped(charset: str, shown: str) -> None:
    @click.command()
    def command() -> None:
        say("東…\x1b\ud800")

    result = CliRunner(charset=charset).invoke(command)
    assert result.exception is None
    assert result.stdout_bytes.decode(charset) == f"{shown}\n"


def test_an_error_cannot_control_the_terminal() -> None:
    with pytest.raises(click.ClickException) as caught, errors_without_traceback():
        raise BrokerUnavailable("the server said \x1b[2J\n\u202e")
    assert caught.value.message == "the server said \\x1b[2J\\n\\u202e"


@pytest.mark.parametrize(
    ("id", "body", "at", "data"),
    [
        (10**15, b"data: \xff\xfe\n\n", "2001-09-09", "\\xff\\xfe"),
        (2**53 - 1, b"data: " + b"[" * 100_000 + b"\t\n\n", "2255-06", "[" * 100_000),
        (10**30, b"\x80", "at no time", ""),
    ],
)
def test_the_fields_of_a_foreign_entry_are_shown(id: int, body: bytes, at: str, data: str) -> None:
    fields = entry_fields(Entry("e", id, 0, body))
    assert fields["at"].startswith(at)
    assert fields["data"] == data
