"""The events that the broker keeps for a channel, as the admin page shows them; and a test event."""

from __future__ import annotations

from typing import Any

from ...brokers.base import NO_INBOX, Broker
from ...config.channel_policies import ADMIN_CHANNEL
from ...errors import InvalidEvent, MessageTooLarge
from ...protocol.cursor import MAX_ID
from ...protocol.data import unmarked
from ...protocol.entry import Entry
from ...protocol.printable import printable
from ..api import LONGEST_CHARACTER
from ..body import MAX_BODY, read_body
from ..refusal import bad_request
from . import writes
from .channels import shard_with, size_of
from .visit import Visit, shown

#: At most how many bytes of entries one request reads, and one call. Larger events are shown without data.
MAX_READ, ROOM = 4_000_000, 1_000_000
#: At most how many characters of an event's data, and how many of its channels, are shown.
MAX_DATA, MAX_CHANNELS = 2000, 20


def listed(visit: Visit) -> dict[str, Any]:
    """Returns one page of the events that a channel keeps, the newest first. Blocks for a few calls."""
    name, limit = visit.channel(), visit.limit()
    before = visit.number("before", MAX_ID, MAX_ID)
    shard = shard_with(visit.services.publishing.broker, name)
    newest = shard.newest([name], limit, before)
    entries = _read(shard, name, newest.ids)
    now = shard.probe(NO_INBOX).id
    found = [_shown(id, entries.get(id), now) for id in newest.ids]
    more = newest.before and len(newest.ids) == limit
    return {"events": found, "next": str(newest.ids[-1]) if more else None}


def _read(shard: Broker, name: str, ids: list[int]) -> dict[int, Entry]:
    """Reads the entries with these ids, the oldest ones first, as far as `MAX_READ` allows."""
    entries: dict[int, Entry] = {}
    size, after = 0, min(ids, default=MAX_ID) - 1
    while ids and after < ids[0] and size < MAX_READ:
        page = shard.page({name: after}, NO_INBOX, ROOM)
        for entry in page.channels[name].entries:
            entries[entry.id] = entry
            size += len(entry.frame)
        if page.until <= after:
            break
        after = page.until
    return entries


def _shown(id: int, entry: Entry | None, now: int) -> dict[str, Any]:
    """Returns what the page shows of an event. The data are None if the event was not read."""
    at = {"at": id / 1e6, "age": max(0.0, round((now - id) / 1e6, 3))}
    if entry is None:
        nothing = {"id": None, "type": None, "bytes": None, "data": None, "cut": True, "json": False}
        return {**at, **nothing, "channels": [], "expired": False}
    kind, text, is_json = _read_frame(entry.frame)
    return {
        **at,
        "id": entry.cursor,
        "type": shown(kind),
        "bytes": size_of(entry),
        "data": "\n".join(printable(line) for line in text[:MAX_DATA].split("\n")),
        "cut": len(text) > MAX_DATA,
        "json": is_json,
        "channels": [shown(name) for name in entry.channels[:MAX_CHANNELS]],
        "expired": entry.is_expired(now),
    }


def _read_frame(frame: bytes) -> tuple[str | None, str, bool]:
    """Returns the type and the text of an event, and whether the text is JSON."""
    kind, data = None, []
    for line in frame.decode(errors="replace").split("\n"):
        field, _, value = line.partition(": ")
        if field == "event":
            kind = value
        elif field == "data":
            data.append(value)
    text, is_json = unmarked("\n".join(data))
    return kind, text, is_json


def publish(visit: Visit) -> dict[str, Any]:
    """Publishes a test event. Returns its cursor, its channel and how many streams listen to this channel.

    :raises Refused: 400, 413, 415 or 422, if the body or a field of it is not valid.
    """
    services = visit.services
    most = MAX_BODY + LONGEST_CHARACTER * services.settings.max_message
    body = read_body(visit.request, ("channel", "type", "data"), most)
    channel, kind = body.get("channel"), body.get("type")
    if not isinstance(channel, str) or channel == ADMIN_CHANNEL:
        raise bad_request("channel must be the name of a channel, and not of the admin page's own", 422)
    if body.get("data") is None:
        raise bad_request("data must be given", 422)
    if kind is not None and not isinstance(kind, str):
        raise bad_request("type must be a string", 422, field="type")
    try:
        cursor = services.publishing.announcer.publish(body["data"], kind, channel=channel)
    except MessageTooLarge as error:
        raise bad_request(str(error), 413) from error
    except InvalidEvent as error:
        raise bad_request(str(error), 422, field=error.field) from error
    writes.note(visit, "published a test event to the channel", channel, cursor=cursor)
    return {
        "cursor": cursor,
        "channel": channel,
        "streams": services.streaming.worker_queries.count(channel),
    }
