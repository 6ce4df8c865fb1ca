"""What may be asked beside the stream, as JSON: to change its channels, to publish, for figures.

The bodies are read with care: they must say that they are JSON, which no form of a foreign page can, and be
small; and the page that sends one must be of an origin that may.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from typing import Any

from flask import Request

from ..announcer import DEFAULT_CHANNEL
from ..auth.policy import Policy
from ..errors import ErrorCode, InvalidEvent, MessageTooLarge, Refused
from ..protocol.channel import checked_channel
from ..protocol.cursor import MAX_LENGTH
from . import cors
from .services import Services

#: Bytes of a body beside what an event in it may have.
MAX_BODY = 50_000
#: Bytes that JSON may take for one byte of text.
LONGEST_CHARACTER = 6
#: Characters of a connection id.
MAX_CONNECTION = 100


def body(request: Request, most: int = MAX_BODY) -> dict[str, Any]:
    """The JSON object that a request brings.

    :raises Refused: 400, 413 or 415.
    """
    if not request.is_json:
        raise bad("the body must be JSON, and Content-Type must say so: application/json", 415)
    if request.content_length is None:
        raise bad("the request must say its Content-Length")
    if request.content_length > most:
        raise bad(f"the body has {request.content_length} bytes, at most {most} are allowed", 413)
    try:
        found = json.loads(request.get_data())
    except (ValueError, RecursionError):
        raise bad("the body is no JSON") from None
    if not isinstance(found, dict):
        raise bad("the body must be a JSON object")
    return found


def bad(message: str, status: int = 400, **details: Any) -> Refused:
    """The refusal of a request that cannot be meant."""
    return Refused(status, ErrorCode.INVALID_FORMAT, message, details=details or None)


def unknown_fields(found: dict[str, Any], known: Collection[str]) -> None:
    """Passes when the body has only fields that are known.

    :raises Refused: 400, naming the others.
    """
    others = sorted(set(found) - set(known))
    if others:
        raise bad(f"unknown fields {', '.join(others)[:200]}; known are {', '.join(known)}")


def change_channels(request: Request, connection: str, policy: Policy, services: Services) -> dict[str, Any]:
    """Has the stream join and leave what the body says; it is told by `sse.channels` when that is done.

    :raises Refused: 400, 401, 403, 413, 415.
    """
    settings = services.settings
    cors.check(request, settings.cors_origins)
    asked = body(request)
    unknown_fields(asked, ("join", "leave", "since", "last", "secret"))
    join, leave = (_channels(asked, field, settings.max_channels) for field in ("join", "leave"))
    if not join and not leave:
        raise bad("nothing to join or leave")
    since, last = _start(asked)
    identity = policy.check_join(request, join)
    secrets, secret = policy.secrets(), asked.get("secret")
    known = isinstance(secret, str) and len(connection) <= MAX_CONNECTION and secrets is not None
    if not known or not secrets.match(secret, connection, identity.user_id):  # type: ignore[union-attr, arg-type]
        message = "the secret is not the one that sse.open gave this stream, or it is another user's"
        raise Refused(403, ErrorCode.PERMISSION_DENIED, message)
    services.publishing.announcer.change(connection, join, leave, since=since, last=last, vouched=False)
    return {"connection": connection, "join": join, "leave": leave}


def publish(
    request: Request,
    policy: Policy,
    may_publish: Callable[[Any, str], bool],
    services: Services,
) -> dict[str, Any]:
    """Publishes the event that the body holds; returns its cursor, and how many streams its channel has.

    :raises Refused: 400 when something is missing, 401, 403, 413, 415; 422 when it is no event.
    """
    settings = services.settings
    cors.check(request, settings.cors_origins)
    asked = body(request, MAX_BODY + LONGEST_CHARACTER * settings.max_message)
    unknown_fields(asked, ("event", "data", "channel", "exclude"))
    missing = [name for name in ("event", "data") if asked.get(name) is None]
    if missing:
        raise bad(f"{' and '.join(missing)} must be given")
    channel = asked.get("channel", DEFAULT_CHANNEL)
    if not isinstance(channel, str):
        raise bad("channel must be one name", 422)
    user = policy.user(request)
    if not may_publish(user, channel):
        raise policy.refusal(user, f"publishing to the channel {channel[:200]!r} is not allowed")
    try:
        cursor = services.publishing.announcer.publish(
            asked["data"], asked["event"], channel=channel, exclude=asked.get("exclude")
        )
    except MessageTooLarge as error:
        raise bad(str(error), 413) from error
    except InvalidEvent as error:
        raise bad(str(error), 422, field=error.field) from error
    return {"cursor": cursor, "channel": channel, "streams": services.streaming.worker_queries.count(channel)}


def stats(services: Services) -> dict[str, Any]:
    """The figures of all workers."""
    workers = services.streaming.worker_queries.stats()
    return {"streams": sum(counters["streams"] for counters in workers), "workers": workers}


def _channels(asked: dict[str, Any], field: str, most: int) -> list[str]:
    names = asked.get(field, [])
    if not isinstance(names, list) or len(names) > most:
        raise bad(f"{field} must be a list of at most {most} channels")
    try:
        return list(dict.fromkeys(checked_channel(name) for name in names))
    except (InvalidEvent, TypeError) as error:
        raise bad(f"{field}: {error}") from error


def _start(asked: dict[str, Any]) -> tuple[str | None, int | None]:
    since, last = asked.get("since"), asked.get("last")
    if since is not None and not (isinstance(since, str) and 0 < len(since) <= MAX_LENGTH):
        raise bad(f"since must be a cursor of at most {MAX_LENGTH} characters")
    if last is not None and (type(last) is not int or not 0 <= last < 10**9):
        raise bad("last must be a number of events")
    if since is not None and last is not None:
        raise bad("since and last cannot be given together")
    return since, last
