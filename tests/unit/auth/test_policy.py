"""Who may listen to a channel: everybody, its own user, or whom the app allows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask
from flask_login import AnonymousUserMixin, UserMixin

from flask_sse_push.auth.hooks import Authorize, Hooks
from flask_sse_push.auth.identity import user_id
from flask_sse_push.auth.policy import Policy
from flask_sse_push.auth.refusals import ADVICE, NO_USERS_ADVICE, OWN_ADVICE
from flask_sse_push.config import Settings
from flask_sse_push.errors import ErrorCode, Refused


class Member(UserMixin):  # type: ignore[misc]
    """A user of flask-login."""

    def __init__(self, id: object) -> None:
        self.id = id


def policy(public: tuple[str, ...], authorize: Authorize | None) -> Policy:
    """The policy of an app without a way to identify users."""
    return Policy(Flask("app"), Settings(public_channels=public), Hooks(authorize=authorize))


def may_listen(user: Any, channel: str, public: tuple[str, ...], authorize: Authorize | None) -> bool:
    return policy(public, authorize).may_listen(user, channel)


def never_called(user: Any, channel: str) -> bool:
    raise AssertionError(f"called for {channel}")


@pytest.mark.parametrize(
    ("user", "id"),
    [
        (None, None),
        (AnonymousUserMixin(), None),
        (Member(7), "7"),
        (Member("ann"), "ann"),
        (SimpleNamespace(id=7), "7"),
        (SimpleNamespace(id=None), None),
        (SimpleNamespace(get_id="no function", id=8), "8"),
        ("ann", "ann"),
        (7, "7"),
    ],
)
def test_a_users_id_is_text(user: Any, id: str | None) -> None:
    assert user_id(user) == id


@pytest.mark.parametrize("user", [object(), SimpleNamespace(get_id=object), SimpleNamespace(id=object())])
def test_a_user_without_an_id_is_refused_instead_of_known_by_its_address(user: Any) -> None:
    app = Flask("app")
    for hook in (None, lambda user: object()):
        with pytest.raises(TypeError, match="has no id: give it an attribute `id`"):
            Policy(app, Settings(), Hooks(user_id=hook)).user_id(user)
    assert Policy(app, Settings(), Hooks(user_id=lambda user: 7)).user_id(user) == "7"


@pytest.mark.parametrize(
    ("channel", "patterns", "open"),
    [
        ("sse", ("sse",), True),
        ("news", ("sse",), False),
        ("news", (), False),
        ("news:uk", ("news:*",), True),
        ("news", ("news:*",), False),
        ("News", ("news",), False),
        ("a", ("x", "[ab]"), True),
        ("anything", ("*",), True),
    ],
)
def test_a_public_channel_matches_a_pattern(channel: str, patterns: tuple[str, ...], open: bool) -> None:
    assert may_listen(None, channel, patterns, None) is open


def test_a_public_channel_is_open_without_a_call_of_the_app() -> None:
    assert may_listen(None, "sse", ("sse",), never_called)


@pytest.mark.parametrize("user", [Member(7), SimpleNamespace(id=7), "7", 7])
def test_a_user_may_listen_to_the_channel_of_their_own(user: Any) -> None:
    assert may_listen(user, "user:7", (), never_called)
    assert not may_listen(user, "user:77", (), None)
    assert not may_listen(user, "user:*", (), None)


@pytest.mark.parametrize("user", [None, AnonymousUserMixin(), SimpleNamespace(id=None)])
def test_nobody_owns_a_channel(user: Any) -> None:
    assert not may_listen(user, "user:None", (), None)
    assert not may_listen(user, "user:", (), None)


@pytest.mark.parametrize(("answer", "allowed"), [(True, True), (1, True), (False, False), (None, False)])
def test_the_app_decides_about_all_other_channels(answer: Any, allowed: bool) -> None:
    calls = []

    def authorize(user: Any, channel: str) -> bool:
        calls.append((user, channel))
        return answer  # type: ignore[no-any-return]

    assert may_listen("ann", "staff", ("sse",), authorize) is allowed
    assert calls == [("ann", "staff")]


def test_a_request_passes_when_every_channel_is_allowed() -> None:
    rules = policy(("sse",), lambda user, channel: channel == "staff")
    rules.check("ann", ["sse", "user:ann", "staff"])
    rules.check(None, [])


def test_one_forbidden_channel_refuses_the_request_and_says_how_to_open_it() -> None:
    rules = policy(("sse",), lambda user, channel: channel == "staff")
    with pytest.raises(Refused) as caught:
        rules.check("ann", ["sse", "orders", "staff"])
    refused = caught.value
    assert (refused.status, refused.code) == (403, ErrorCode.PERMISSION_DENIED)
    assert refused.details == {"channel": "orders"}
    assert refused.message == f"listening to the channel 'orders' is not allowed; {ADVICE}"
    assert "SSE_PUSH_PUBLIC_CHANNELS" in ADVICE
    assert '"public": True for it in SSE_PUSH_CHANNELS' in ADVICE
    assert "@sse.authorize" in ADVICE


@pytest.mark.parametrize(("user", "advice"), [("ann", OWN_ADVICE), (None, NO_USERS_ADVICE)])
def test_the_channel_of_a_user_is_never_said_to_be_opened_to_everybody(user: Any, advice: str) -> None:
    for rules in (policy(("sse",), None), policy(("sse",), lambda user, channel: False)):
        with pytest.raises(Refused) as caught:
            rules.check(user, ["user:bob"])
        refused = caught.value
        assert refused.status == 403
        assert refused.message == f"listening to the channel 'user:bob' is not allowed; {advice}"
        assert "SSE_PUSH_PUBLIC_CHANNELS" not in refused.for_log


def test_who_must_sign_in_first_is_not_advised_to_open_the_channel_of_a_user() -> None:
    rules = Policy(Flask("app"), Settings(), Hooks(identify=[lambda request: None]))
    with pytest.raises(Refused, match="sign in") as caught:
        rules.check(None, ["user:bob"])
    assert caught.value.status == 401
    assert OWN_ADVICE in caught.value.for_log
    assert "SSE_PUSH_PUBLIC_CHANNELS" not in caught.value.for_log
