"""Tokens of an admin's writes: whose they are, and how long they are valid."""

from __future__ import annotations

import time

import pytest

from flask_sse_push.auth.admin_tokens import VALID, AdminTokens

ADA = ("sse", "ada", "session 1")


def test_a_token_belongs_to_one_user_one_session_and_one_blueprint() -> None:
    token = AdminTokens(["key"], ADA).make()
    assert AdminTokens(["key"], ADA).is_valid(token)
    for other in (("sse", "grace", "session 1"), ("sse", "ada", "session 2"), ("shop", "ada", "session 1")):
        assert not AdminTokens(["key"], other).is_valid(token)
    assert not AdminTokens(["key"], ("sse", None, None)).is_valid(token)
    assert not AdminTokens(["other key"], ADA).is_valid(token)


def test_a_token_of_an_earlier_key_is_valid() -> None:
    token = AdminTokens(["old"], ADA).make()
    assert AdminTokens(["old", "new"], ADA).is_valid(token)


def test_a_token_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = AdminTokens(["key"], ADA)
    token, now = tokens.make(), time.time()
    for seconds, valid in ((VALID - 5, True), (VALID + 5, False), (-5, True), (-1000, False)):
        monkeypatch.setattr(time, "time", lambda seconds=seconds: now + seconds)
        assert tokens.is_valid(token) is valid


@pytest.mark.parametrize("text", ["", "x", "a.b.c", "\ud800", "x" * 10_000])
def test_other_texts_are_no_tokens(text: str) -> None:
    assert not AdminTokens(["key"], ADA).is_valid(text)
