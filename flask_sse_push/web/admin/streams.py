"""The open streams of all workers, as the admin page shows them: pages of a list, and one stream.

Each worker sends at most one page of its streams, the newest ones. So a page costs about the same, however
many streams are open.
"""

from __future__ import annotations

import heapq
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...errors import ErrorCode, Refused
from ...hub.stream import Stream
from ...presence.query import Answers
from ...presence.query import listed as facts_of
from ...protocol.channel import shard_of
from ...protocol.shard_cursor import ShardCursor, StreamCursor
from ..body import read_body
from ..refusal import bad_request
from . import workers, writes
from .visit import MAX_PAGE, shown

if TYPE_CHECKING:
    from ...brokers.base import Broker
    from ..services import Services
    from .visit import Visit

#: The kinds of queries: for one page of the list, and for one stream.
LIST, ONE = "admin.streams", "admin.stream"
#: At most how many channels of a stream the list shows.
CHANNELS = 20
#: For how many seconds a refusal explains that a user has no stream.
REFUSED = 600.0
#: The lag of a stream whose position is not known.
UNKNOWN: Mapping[str, Any] = {"events": None, "seconds": None}
#: At most how many events behind the newest one are counted.
MAX_LAG = 100
#: The time in a place in the list, in Unix seconds.
PLACE = re.compile(r"[0-9]{1,12}(\.[0-9]{1,20})?")
#: The id of a stream.
CONNECTION = re.compile("[0-9a-f]{16}")


# -- the list ------------------------------------------------------------------------------------------------


def page(visit: Visit) -> dict[str, Any]:
    """Returns one page of the streams that match the filters in the query, the newest first."""
    limit = visit.limit()
    details: dict[str, Any] = {
        "address": visit.text("address"),
        "worker": visit.text("worker"),
        "limit": limit,
    }
    after = _parsed_place(visit.text("after"))
    if after is not None:
        details["after"] = list(after)
    queries = visit.services.streaming.worker_queries
    answers = queries.ask(LIST, details, channel=visit.text("channel"), user_id=visit.text("user"))
    return merged(answers, limit)


def merged(answers: Answers, limit: int) -> dict[str, Any]:
    """Returns one page of streams from the pages of all workers."""
    found = [stream for each in answers.found for stream in each.get("streams", ())]
    found.sort(key=lambda stream: (stream["since"], stream["connection"]), reverse=True)
    last = found[limit - 1] if len(found) > limit else None
    return {
        "streams": found[:limit],
        "total": sum(int(each.get("total", 0)) for each in answers.found),
        "next": None if last is None else f"{last['since']!r},{last['connection']}",
        "missing": answers.missing,
    }


def _parsed_place(text: str | None) -> tuple[float, str] | None:
    """Reads the place in the list after which the next page begins.

    :raises Refused: 400, if `text` is no such place.
    """
    if text is None:
        return None
    since, _, connection = text.partition(",")
    if not PLACE.fullmatch(since):
        raise bad_request("after is no place in the list: pass the value of `next`")
    return float(since), connection


def answer_list(
    services: Services, streams: Sequence[Stream], details: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Answers the query `LIST`: yields this worker's part of the page."""
    name, address = services.streaming.worker_counts.name, details.get("address")
    if details.get("worker") not in (None, name):
        return
    found = [stream for stream in streams if address is None or stream.address == address]
    total = len(found)
    if after := details.get("after"):
        place = (float(after[0]), str(after[1]))
        found = [stream for stream in found if (stream.opened_at, stream.connection) < place]
    limit = min(int(details.get("limit", MAX_PAGE)), MAX_PAGE) + 1  # one more shows that another page follows
    newest = heapq.nlargest(limit, found, key=lambda stream: (stream.opened_at, stream.connection))
    if details.get("full"):
        yield {
            "total": total,
            "streams": [_full(services, stream) for stream in newest],
            "worker": workers.state(services),
            "refusals": [*_refusals(services, details)],
        }
    else:
        yield {"total": total, "streams": [_listed(stream, name, CHANNELS) for stream in newest]}


def _listed(stream: Stream, worker: str, most_channels: int) -> dict[str, Any]:
    """Returns what the list shows of a stream. Texts from the client are printable and short."""
    facts = facts_of(stream, worker)
    channels = facts["channels"]
    for key in ("user_id", "address", "user_agent"):
        facts[key] = shown(facts[key])
    facts["channels"], facts["channel_count"] = channels[:most_channels], len(channels)
    facts["transport"] = "generator" if stream.holds_request else "hijack"
    return facts


# -- one stream ----------------------------------------------------------------------------------------------


def one(visit: Visit) -> dict[str, Any]:
    """Returns what its worker knows of one stream, and its lag. Blocks for queries and calls.

    :raises Refused: 404, if no worker that answers has the stream.
    """
    connection = visit.rest[:100]
    answers = visit.services.streaming.worker_queries.ask(ONE, {"connection": connection})
    if not answers.found:
        silent = f"; the workers {', '.join(answers.missing)} did not answer" if answers.missing else ""
        message = f"no worker has an open stream {shown(connection)!r}: it has closed{silent}"
        raise Refused(404, ErrorCode.DATA_NOT_FOUND, message, told=True)  # no mistake of the client
    facts = with_lag(visit.services.publishing.broker, answers.found[0])
    return {"stream": facts, "missing": answers.missing}


def with_lag(broker: Broker, facts: dict[str, Any]) -> dict[str, Any]:
    """Returns the facts about a stream with its lag in place of its positions. Blocks like `lag`."""
    at = {int(number): int(id) for number, id in facts.get("at", {}).items()}
    others = {key: value for key, value in facts.items() if key != "at"}
    return {**others, "lag": lag(broker, facts["channels"], at)}


def answer_one(
    services: Services, streams: Sequence[Stream], details: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Answers the query `ONE`: yields what this worker knows of the stream, if it has the stream."""
    for stream in services.streaming.hub.disconnector.find(connection=str(details.get("connection"))):
        yield _full(services, stream)


def _full(services: Services, stream: Stream) -> dict[str, Any]:
    """Returns everything that this worker knows of a stream. `at` is its position on each shard."""
    streaming, waiting_since = services.streaming, getattr(stream, "waiting_since", None)
    cursor = streaming.hub.cursor_of(stream)
    return {
        **_listed(stream, streaming.worker_counts.name, services.settings.max_channels),
        "cursor": None if cursor is None else str(cursor),
        "at": {} if cursor is None else _positions(cursor),
        "behind": cursor is None,
        "waiting": None if waiting_since is None else round(time.monotonic() - waiting_since, 3),
        "lost_at": stream.lost_at or None,
        "poll": stream.poll,
        "compressed": stream.compression is not None,
        "dialect": stream.dialect,
        "can_change": stream.grant is not None,
        "rechecked_in": streaming.recheck.seconds_until(stream),
        "closing": stream.closing,
    }


def _refusals(services: Services, details: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields the newest refusal of the user or the address in a question, if this worker remembers one."""
    user, address, channel = details.get("user"), details.get("address"), details.get("channel")
    for each in reversed(services.refusals):
        if each.at < time.time() - REFUSED:
            return
        if (channel is None or each.channel in (None, channel)) and (
            (user is not None and each.user_id == user) or (address is not None and each.address == address)
        ):
            yield {"at": each.at, "status": each.status, "message": shown(each.message, 500)}
            return


def _positions(cursor: StreamCursor) -> dict[int, int]:
    """Returns the position on each shard, by the shard's number. A cursor of one shard gets the number -1."""
    if isinstance(cursor, ShardCursor):
        return {int(part.epoch[0]): part.id for part in cursor.parts}
    return {-1: cursor.id}


def lag(broker: Broker, channels: Sequence[str], at: Mapping[int, int]) -> dict[str, Any]:
    """Returns how many events a stream has yet to get, at most `MAX_LAG`, and how old the oldest of them is.

    Blocks for two calls to each shard that has a channel of the stream.

    :param at: the position up to which the stream has every event, by the number of the shard; empty if the
        position is not known.
    """
    if not at:
        return dict(UNKNOWN)
    events, seconds = 0, 0.0
    for number, shard in enumerate(broker.shards):
        here = [name for name in channels if shard_of(name, len(broker.shards)) == number]
        position = at.get(number, at.get(-1, 0))
        late = [id for id in shard.newest(here, MAX_LAG).ids if id > position] if here else []
        if late:
            now = shard.probe("nobody").id
            events, seconds = events + len(late), max(seconds, (now - min(late)) / 1e6)
    return {"events": min(events, MAX_LAG), "seconds": round(seconds, 3)}


def disconnect(visit: Visit) -> dict[str, Any]:
    """Closes one stream, on whichever worker it is.

    :raises Refused: 400, if the body is not valid; 404, if no stream can have the id in the path.
    """
    connection, _, action = visit.rest.partition("/")
    body = read_body(visit.request, ("reconnect",))
    reconnect = body.get("reconnect", True)
    if action != "disconnect":
        raise bad_request("the path of a write to a stream ends with /disconnect")
    if not isinstance(reconnect, bool):
        raise bad_request("reconnect must be true or false")
    if not CONNECTION.fullmatch(connection):
        message = f"no stream has the id {shown(connection, 100)!r}: an id has 16 hexadecimal digits"
        raise Refused(404, ErrorCode.DATA_NOT_FOUND, message)
    visit.services.publishing.announcer.disconnect(connection=connection, reconnect=reconnect)
    writes.note(visit, "disconnected the stream", connection, reconnect=reconnect)
    return {"connection": connection, "reconnect": reconnect}
