"""The ids of users that an app passes to `revoke`, `send_to_user` and other methods."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from flask_sse_push.brokers.announcer import MessageAnnouncer
from flask_sse_push.errors import InvalidEvent
from flask_sse_push.protocol.user import checked_user_id

METHODS: dict[str, Callable[[MessageAnnouncer, Any], object]] = {
    "revoke": lambda announcer, id: announcer.revoke(id),
    "send_to_user": lambda announcer, id: announcer.send_to_user(id, "hello"),
    "disconnect": lambda announcer, id: announcer.disconnect(user_id=id),
}


class Name(StrEnum):
    ADA = "ada"


@pytest.mark.parametrize(
    ("id", "text"),
    [
        ("ada", "ada"),
        (7, "7"),
        (0, "0"),
        (UUID(int=7), str(UUID(int=7))),
        (Name.ADA, "ada"),
        (10**30, "1" + "0" * 30),
    ],
)
def test_an_id_is_text_a_whole_number_or_a_uuid(id: Any, text: str) -> None:
    assert checked_user_id(id) == text
    assert type(checked_user_id(id)) is str


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("id", [object(), b"ada", ["ada"], {"id": 7}, 7.0, True])
def test_anything_else_is_refused_instead_of_reaching_nobody(id: Any, method: str) -> None:
    announcer = MessageAnnouncer.from_url("memory://")
    with pytest.raises(
        TypeError, match=r"^user_id is .*, must be a str, an int or a UUID: pass the id of a user$"
    ):
        METHODS[method](announcer, id)


@pytest.mark.parametrize("method", ["revoke", "send_to_user"])
def test_none_is_refused_where_a_user_is_needed(method: str) -> None:
    with pytest.raises(TypeError, match=r"^user_id is None, must be"):
        METHODS[method](MessageAnnouncer.from_url("memory://"), None)


def test_the_error_about_a_user_object_says_what_to_pass() -> None:
    with pytest.raises(TypeError, match=r"pass user\.id, not the user$"):
        checked_user_id(SimpleNamespace(id=7))


@pytest.mark.parametrize("method", METHODS)
def test_an_empty_id_is_refused(method: str) -> None:
    with pytest.raises(InvalidEvent, match=r"^user_id: is empty"):
        METHODS[method](MessageAnnouncer.from_url("memory://"), "")
