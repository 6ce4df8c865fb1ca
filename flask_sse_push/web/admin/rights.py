"""Checks whether a user may listen to a channel, by asking the app's rule now."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ...auth.refusals import not_public
from ...hub.callbacks import name_of
from . import workers
from .checks import BROKEN, WARNING, Reason
from .visit import shown

if TYPE_CHECKING:
    from ...auth.flask_login import Loader
    from ...auth.policy import Policy

logger = logging.getLogger(__name__)


def plain_loader(admin: Any) -> Loader | None:
    """Returns a function that loads a user by the id, if the users of the app are plain ids; else None.

    :param admin: a user of the app.
    """
    if isinstance(admin, str):
        return str
    if isinstance(admin, int):
        return lambda id: int(id) if id.isascii() and id.isdecimal() else None
    return None


def examined(
    policy: Policy, load: Loader | None, id: str, channel: str, *, is_connected: bool
) -> Iterator[Reason]:
    """Yields why a user may not listen to a channel; nothing if the user may. Calls the app's rules.

    :param load: loads a user by the id; None if the app has no such function.
    :param is_connected: whether the user has open streams. The app then knows the user, perhaps by another
        id.
    """
    if policy.settings.policies[channel].public or channel == f"user:{id}":
        return
    if load is None:
        yield _unchecked(id, channel, "the app cannot load users")
        return
    try:
        user = load(id)
    except Exception as error:  # the app's function may raise anything
        yield _failed("load the user", id, error)
        return
    if user is None:
        yield _unchecked(id, channel, "the user loader returns None") if is_connected else _unknown(id)
        return
    try:
        may_listen = policy.may_listen(user, channel)
    except Exception as error:
        yield _failed("ask @sse.authorize", id, error)
        return
    if not may_listen:
        yield _refused(policy, id, channel)


def _unknown(id: str) -> Reason:
    what = f"The app knows no user {shown(id)!r}: its user loader returns None."
    advice = (
        "Give the id that @sse.user_id returns, else the attribute `id`. If flask-login's ids differ from "
        "these ids, register a function with @sse.load_user."
    )
    return Reason(BROKEN, "unknown_user", what, advice)


def _refused(policy: Policy, id: str, channel: str) -> Reason:
    rule = policy.rule
    by = "the app has no @sse.authorize rule" if rule is None else f"{name_of(rule)} returns False"
    closed = not_public(policy.settings, channel)
    what = f"User {shown(id)!r} may not listen to {channel!r}: {closed}, and {by} for this user."
    advice = "Requests for this channel get 403. Allow the channel in @sse.authorize."
    if not channel.startswith("user:"):
        advice += (
            ' If all users may listen, set "public": True for it in SSE_PUSH_CHANNELS, or name it in '
            "SSE_PUSH_PUBLIC_CHANNELS."
        )
    return Reason(BROKEN, "not_authorized", what, advice, {"kind": "channel", "name": channel})


def _unchecked(id: str, channel: str, why: str) -> Reason:
    what = f"Whether user {shown(id)!r} may listen to {channel!r} was not checked: {why}."
    advice = "Register a function with @sse.load_user, or look for `refused` in the log of the workers."
    return Reason(WARNING, "not_checked", what, advice)


def _failed(action: str, id: str, error: Exception) -> Reason:
    logger.warning("the admin page could not %s: %r", action, error, exc_info=error)
    what = f"The app could not {action}: its function raised {type(error).__name__}."
    if isinstance(error, (ValueError, TypeError)):
        what += f" Perhaps the id has the wrong form: is {shown(id)!r} an id of this app?"
    advice = (
        f"Read the traceback in the log of the worker that has answered: process {os.getpid()} on "
        f"{workers.host()}. If the id is right, the app refuses or closes this user's streams until its "
        "function works."
    )
    return Reason(BROKEN, "rule_failed", what, advice)
