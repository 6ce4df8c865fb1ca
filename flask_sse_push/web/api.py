"""The JSON routes: changing a stream's channels, publishing over HTTP, and the workers' figures.

Two checks keep pages of other sites out: the page's origin must be allowed, and the body must be declared as
JSON, which no form of such a page can do. Bodies must be small.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Request

from ..announcer import DEFAULT_CHANNEL
from ..auth.policy import Policy
from ..errors import ErrorCode, InvalidEvent, MessageTooLarge, Refused
from ..protocol.channel import checked_channel
from ..protocol.cursor import MAX_LENGTH
from . import cors
from .body import MAX_BODY, read_body
from .refusal import bad_request
from .services import Services

#: Bytes that JSON may need for one byte of text.
LONGEST_CHARACTER = 6
#: Most characters of a connection id.
MAX_CONNECTION = 100


def change_channels(request: Request, connection: str, policy: Policy, services: Services) -> dict[str, Any]:
    """Tells all workers to change the channels of one stream, as the body says. Returns the changes.

    The client learns from `sse.channels` that they are done.

    :raises Refused: 400, 401, 403, 413, 415.
    """
    settings = services.settings
    cors.check(request, settings.cors_origins)
    body = read_body(request, ("join", "leave", "since", "last", "secret"))
    join, leave = (_channels(body, field, settings.max_channels) for field in ("join", "leave"))
    if not join and not leave:
        raise bad_request("nothing to join or leave")
    since, last = _start(body)
    identity = policy.check_join(request, join)
    secrets, secret = policy.secrets(), body.get("secret")
    can_match = isinstance(secret, str) and len(connection) <= MAX_CONNECTION and secrets is not None
    if not can_match or not secrets.match(secret, connection, identity.user_id):  # type: ignore[union-attr, arg-type]
        message = "the secret is not the one that sse.open gave this stream, or it is another user's"
        raise Refused(403, ErrorCode.PERMISSION_DENIED, message)
    services.publishing.announcer.change(connection, join, leave, since=since, last=last, vouched=False)
    return {"connection": connection, "join": join, "leave": leave}


def publish(
    request: Request, policy: Policy, may_publish: Callable[[Any, str], bool], services: Services
) -> dict[str, Any]:
    """Publishes the event in the body. Returns its cursor and channel, and how many streams have the channel.

    :raises Refused: 400 when a field is missing, 401, 403, 413, 415; 422 when a field is wrong.
    """
    settings = services.settings
    cors.check(request, settings.cors_origins)
    max_size = MAX_BODY + LONGEST_CHARACTER * settings.max_message
    body = read_body(request, ("event", "data", "channel", "exclude"), max_size)
    missing = [name for name in ("event", "data") if body.get(name) is None]
    if missing:
        raise bad_request(f"{' and '.join(missing)} must be given")
    channel = body.get("channel", DEFAULT_CHANNEL)
    if not isinstance(channel, str):
        raise bad_request("channel must be one name", 422)
    user = policy.user(request)
    if not may_publish(user, channel):
        raise policy.refusal(user, f"publishing to the channel {channel[:200]!r} is not allowed")
    announcer, exclude = services.publishing.announcer, body.get("exclude")
    try:
        cursor = announcer.publish(body["data"], body["event"], channel=channel, exclude=exclude)
    except MessageTooLarge as error:
        raise bad_request(str(error), 413) from error
    except InvalidEvent as error:
        raise bad_request(str(error), 422, field=error.field) from error
    return {"cursor": cursor, "channel": channel, "streams": services.streaming.worker_queries.count(channel)}


def stats(services: Services) -> dict[str, Any]:
    """Returns the figures of all workers, and the sum of their streams. Blocks for the workers' answers."""
    workers = services.streaming.worker_queries.stats()
    return {"streams": sum(worker["streams"] for worker in workers), "workers": workers}


def _channels(body: dict[str, Any], field: str, most: int) -> list[str]:
    names = body.get(field, [])
    if not isinstance(names, list) or len(names) > most:
        raise bad_request(f"{field} must be a list of at most {most} channels")
    try:
        return list(dict.fromkeys(checked_channel(name) for name in names))
    except (InvalidEvent, TypeError) as error:
        raise bad_request(f"{field}: {error}") from error


def _start(body: dict[str, Any]) -> tuple[str | None, int | None]:
    """Returns `since` and `last`; at most one of them is not None."""
    since, last = body.get("since"), body.get("last")
    if since is not None and not (isinstance(since, str) and 0 < len(since) <= MAX_LENGTH):
        raise bad_request(f"since must be a cursor of at most {MAX_LENGTH} characters")
    if last is not None and (type(last) is not int or not 0 <= last < 10**9):
        raise bad_request("last must be a number of events")
    if since is not None and last is not None:
        raise bad_request("since and last cannot be given together")
    return since, last
