"""Tickets: signed, short-lived, and never in a log."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_sse_push.auth.tickets import Tickets, redacted_query, redacted_url
from flask_sse_push.errors import ErrorCode, Refused

TICKETS = Tickets(["secret"], "sse")


def code_of(text: str, tickets: Tickets = TICKETS) -> int:
    with pytest.raises(Refused) as caught:
        tickets.read(text)
    assert caught.value.status == 401
    assert len(text) < 40 or text not in str(caught.value)
    return int(caught.value.code)


def test_a_ticket_holds_its_user_its_channels_and_when_it_expires() -> None:
    before = time.time()
    ticket = TICKETS.read(TICKETS.sign("ada", ["news", "user:ada"], 5))
    assert (ticket.user_id, ticket.channels) == ("ada", ("news", "user:ada"))
    assert before + 5 <= ticket.expires <= time.time() + 5.1


def test_no_two_tickets_have_the_same_name() -> None:
    names = {TICKETS.read(TICKETS.sign(None, ["a"])).name for _ in range(50)}
    assert len(names) == 50


def test_a_ticket_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    text = TICKETS.sign("ada", ["a"], 60)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 59)
    TICKETS.read(text)
    monkeypatch.setattr(time, "time", lambda: now + 61)
    assert code_of(text) == ErrorCode.AUTH_EXPIRED


@pytest.mark.parametrize(
    "seconds",
    [
        0,
        -1,
        60.5,
        float("nan"),
        float("inf"),
        10**400,
        pytest.param(10**5000, id="huge"),
        None,
        "5",
        True,
        Decimal(5),
    ],
)
def test_a_ticket_is_valid_for_a_minute_at_most(seconds: Any) -> None:
    with pytest.raises(ValueError, match="at most 60"):
        TICKETS.sign("ada", ["a"], seconds)


def test_a_ticket_signed_by_another_key_or_for_another_blueprint_is_refused() -> None:
    assert code_of(Tickets(["other"], "sse").sign("ada", ["a"])) == ErrorCode.AUTH_FAILED
    assert code_of(Tickets(["secret"], "shop").sign("ada", ["a"])) == ErrorCode.AUTH_FAILED


def test_a_key_that_was_replaced_is_still_accepted_while_it_is_a_fallback() -> None:
    old = TICKETS.sign("ada", ["a"])
    assert Tickets(["secret", "new"], "sse").read(old).user_id == "ada"
    assert code_of(old, Tickets(["new"], "sse")) == ErrorCode.AUTH_FAILED


def test_a_changed_ticket_is_refused() -> None:
    text = TICKETS.sign("ada", ["a"])
    for at in range(0, len(text) - 1, 7):
        other = "A" if text[at] != "A" else "B"
        assert code_of(text[:at] + other + text[at + 1 :]) == ErrorCode.AUTH_FAILED


@given(st.text(max_size=200))
def test_any_other_text_is_refused(text: str) -> None:
    assert code_of(text) == ErrorCode.AUTH_FAILED


def test_a_text_of_any_length_is_refused() -> None:
    assert code_of("." * 1_000_000) == ErrorCode.AUTH_FAILED


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("/stream", "/stream"),
        ("/stream?channels=a&ticket=abc.def&last=3", "/stream?channels=a&ticket=***&last=3"),
        ("/stream?ticket=abc?ticket=def", "/stream?ticket=***"),
        ("/stream?ticket=a&ticket=b", "/stream?ticket=***&ticket=***"),
        ("/stream?%74icket=abc", "/stream?ticket=***"),
        ("/stream?tickets=abc", "/stream?tickets=abc"),
    ],
)
def test_a_log_shows_no_ticket(url: str, shown: str) -> None:
    assert redacted_url(url) == shown
    assert redacted_query(url.partition("?")[2]) == shown.partition("?")[2]


def test_a_refusal_says_that_it_is_the_ticket_which_is_wrong() -> None:
    with pytest.raises(Refused) as refused:
        TICKETS.read("abc.def")
    assert refused.value.message == "the ticket is not valid, or was used before; get a new one"
