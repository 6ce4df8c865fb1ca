"""Handlers of the JSON routes: change a stream's channels, publish over HTTP, and show the workers' figures.

Two checks protect against pages of other sites: the origin of the page must be allowed, and the request must
declare its body as JSON. An HTML form cannot send JSON. The size of a body is limited.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Request

from ..auth.limits import CHANGE
from ..auth.policy import Policy
from ..brokers.announcer import DEFAULT_CHANNEL
from ..config.channel_policies import ADMIN_CHANNEL
from ..errors import ErrorCode, InvalidEvent, MessageTooLarge, Refused
from ..protocol.channel import checked_channels
from ..protocol.cursor import MAX_LENGTH
from ..protocol.entry import TAB_MARK
from .body import IN_JSON, MAX_BODY, read_body, size_limit
from .cors import check_own_page
from .page import began
from .refusal import bad_request
from .services import Services

#: How many bytes JSON needs at most for one byte of text, for example `\u0007` for a control character.
LONGEST_CHARACTER = 6
#: A connection id with more characters than this is refused.
MAX_CONNECTION = 100


def change_channels(request: Request, connection: str, policy: Policy, services: Services) -> dict[str, Any]:
    """Publishes a command that changes the channels of one stream. Returns the requested changes.

    The body of the request names the channels to join and to leave. When the stream has changed its channels,
    the client gets the event `sse.channels`.

    :raises Refused: 400, 413 or 415, if the body is not valid; 401 or 403, if the change is not allowed; 429,
        if the user or the address has reached a limit.
    :raises BrokerUnavailable: if the broker does not answer in time.
    """
    settings = services.settings
    services.check_origin(request)
    max_size = size_limit(2 * settings.max_channels, IN_JSON)  # so many to join, and so many to leave
    body = read_body(request, ("join", "leave", "since", "last", "secret"), max_size)
    join, leave = (_channels(body, field, settings.max_channels) for field in ("join", "leave"))
    if not join and not leave:
        raise bad_request("the body names no channel to join or leave")
    since, last = _start(body)
    limits = services.streaming.limits
    if limits.counts_attempts:
        limits.count_attempt("address", request.remote_addr, CHANGE)
    asked = services.command_position(began()) if join else None
    user_id = policy.check_join(request, join)
    if limits.counts_attempts:
        limits.count_attempt("user", user_id, CHANGE)
    secrets, secret = policy.secrets(), body.get("secret")
    can_match = isinstance(secret, str) and len(connection) <= MAX_CONNECTION and secrets is not None
    stream = connection.partition(TAB_MARK)[0]  # several tabs may share the stream
    if not can_match or not secrets.match(secret, stream, user_id):  # type: ignore[union-attr, arg-type]
        message = "the secret is wrong: use the secret that sse.open gave this stream, as the same user"
        raise Refused(403, ErrorCode.PERMISSION_DENIED, message)
    if ADMIN_CHANNEL in join:
        check_own_page(request)
        from .admin.watch import watch_of  # only admin pages listen to the channel

        watch_of(services).start()
    services.publishing.announcer.change(connection, join, leave, since=since, last=last, asked=asked)
    return {"connection": connection, "join": join, "leave": leave}


def publish(
    request: Request, policy: Policy, may_publish: Callable[[Any, str], bool], services: Services
) -> dict[str, Any]:
    """Publishes the event in the body of the request.

    Returns the event's cursor and channel, and how many streams listen to this channel.

    :raises Refused: 400, if a field is missing; 401 or 403, if the user may not publish; 413, if the body is
        too large; 415, if it is not JSON; 422, if a field is wrong.
    """
    settings = services.settings
    services.check_origin(request)
    max_size = MAX_BODY + LONGEST_CHARACTER * settings.max_message
    body = read_body(request, ("event", "data", "channel", "exclude"), max_size)
    missing = [name for name in ("event", "data") if body.get(name) is None]
    if missing:
        raise bad_request(f"{' and '.join(missing)} must be given")
    channel = body.get("channel", DEFAULT_CHANNEL)
    if not isinstance(channel, str):
        raise bad_request("channel must be the name of one channel", 422)
    if not isinstance(body["event"], str):
        raise bad_request("event must be a string", 422, field="type")
    if channel == ADMIN_CHANNEL:
        raise bad_request(f"only workers publish to the channel {channel!r}", 422, field="channel")
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
    """Returns the figures of all workers, and how many streams they have in all. Blocks until they answer."""
    workers = services.streaming.worker_queries.stats()
    return {"streams": sum(worker["streams"] for worker in workers), "workers": workers}


def _channels(body: dict[str, Any], field: str, most: int) -> list[str]:
    names = body.get(field, [])
    if not isinstance(names, list) or len(names) > most or not all(isinstance(name, str) for name in names):
        raise bad_request(f"{field} must be a list of at most {most} channels")
    try:
        return list(checked_channels(names, most, field)) if names else []
    except InvalidEvent as error:
        raise bad_request(str(error)) from error


def _start(body: dict[str, Any]) -> tuple[str | None, int | None]:
    """Returns the fields `since` and `last`, which say where joined channels start. At most one is given."""
    since, last = body.get("since"), body.get("last")
    if since is not None and not (isinstance(since, str) and 0 < len(since) <= MAX_LENGTH):
        raise bad_request(f"since must be a cursor of at most {MAX_LENGTH} characters")
    if last is not None and (type(last) is not int or not 0 <= last < 10**9):
        raise bad_request("last must be a number of events")
    if since is not None and last is not None:
        raise bad_request("since and last cannot be given together")
    return since, last
