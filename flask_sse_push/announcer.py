"""The announcer: publishes events and commands. It needs no Flask app and no gevent."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from . import payload
from .brokers.base import Broker
from .brokers.url import connect_broker
from .config import Settings
from .errors import InvalidEvent, MessageTooLarge
from .protocol.channel import BROADCAST, checked_channel, checked_channels
from .protocol.command import REVOKE, Command, command_publication
from .protocol.entry import Publication
from .protocol.event import (
    Dumps,
    Event,
    checked_exclude,
    checked_once,
    checked_ttl,
    make_event,
    plain_line_ends,
)

DEFAULT_CHANNEL = "sse"
#: Events one batch may hold: the broker stores them in one step and can do nothing else until it ends.
MAX_BATCH = 1000
LEVELS = ("debug", "info", "warning", "error", "critical")


class MessageAnnouncer:
    """Publishes events from any process: views, Celery tasks, cron jobs, shells.

    All methods block until the broker has stored the event, at most `SSE_PUSH_PUBLISH_TIMEOUT` seconds.
    Threads may share an announcer.

    :param dumps: writes data that is not a string, as JSON text.
    :param published: called after each publish with the number of events.
    """

    def __init__(
        self,
        broker: Broker,
        settings: Settings,
        dumps: Dumps = json.dumps,
        published: Callable[[int], None] = lambda events: None,
    ) -> None:
        self._broker = broker
        self._max_message = settings.max_message
        self._dumps = dumps
        self._published = published

    @classmethod
    def from_url(cls, url: str, **config: Any) -> MessageAnnouncer:
        """Makes an announcer without an app. It connects with its first publish.

        :param url: the app's `SSE_PUSH_BROKER_URL`.
        :param config: further settings by their keys, e.g. `SSE_PUSH_PREFIX="shop"`; settings left out are
            read from the environment. All must be the same as the app's.
        :raises ConfigError: when a setting is wrong.
        """
        settings = Settings.load({**config, "SSE_PUSH_BROKER_URL": url})
        return cls(connect_broker(settings), settings)

    def publish(
        self,
        data: Any,
        type: str | None = None,
        *,
        channel: str | Iterable[str] = DEFAULT_CHANNEL,
        id: str | None = None,
        retry: int | None = None,
        exclude: str | Iterable[str] | None = None,
        ttl: float | None = None,
        compress: str | None = None,
    ) -> str:
        """Stores one event and sends it to every stream of its channels; returns its cursor.

        :param data: a string goes out as it is, anything else as JSON.
        :param type: the name browsers listen for; None is a plain `message`.
        :param channel: one channel or several; a stream that has several of them gets the event once.
        :param id: an idempotency id: a second publish with the same id, within the history's time to live,
            stores nothing and returns the first cursor, unless the broker lost its data in between.
        :param retry: sets the clients' reconnection time, in milliseconds.
        :param exclude: connection ids or user ids that do not get the event.
        :param ttl: seconds after which it is no longer replayed; 0 means live only.
        :param compress: "auto" sends text over 1024 bytes in an envelope of `payload` if that is smaller;
            clients other than PushClient must unpack it themselves.
        :raises InvalidEvent: naming the wrong field.
        :raises MessageTooLarge: with both sizes.
        :raises BrokerUnavailable: it is stored zero or one times; with `id` it is safe to publish again.
        """
        batch = Batch(self)
        batch.publish(data, type, channel=channel, retry=retry, exclude=exclude, ttl=ttl, compress=compress)
        return self._send(batch.publications, id)[0]

    def publish_many(self, events: Iterable[Mapping[str, Any]], *, id: str | None = None) -> list[str]:
        """Stores several events in one round trip, all or none, in order; returns their cursors.

        :param events: for each event the arguments of `publish` without `id`, such as
            `{"data": 1, "channel": "news"}`; 1000 events at most.
        :param id: an idempotency id for all of them together.
        :raises InvalidEvent: naming the wrong event and its field; then none is published.
        :raises BrokerUnavailable: all are stored or none; with `id` it is safe to publish again.
        """
        batch = Batch(self)
        for at, event in enumerate(events):
            try:
                batch.publish(**event)
            except (InvalidEvent, TypeError) as error:
                raise InvalidEvent(f"events[{at}]", str(error)) from error
        return self._send(batch.publications, id)

    @contextlib.contextmanager
    def batch(self, *, id: str | None = None) -> Iterator[Batch]:
        """Gathers events and publishes them together when the block ends. When it raises, publishes none.

        Yields a `Batch`. Its `publish` does not block; its `cursors` are set after the block.

        :param id: an idempotency id for all of them together.
        :raises BrokerUnavailable: at the end of the block: all are stored or none.
        """
        batch = Batch(self)
        yield batch
        batch.cursors = self._send(batch.publications, id)

    def notify(
        self, type: str, data: Any, *, level: str = "info", channel: str | Iterable[str] = DEFAULT_CHANNEL
    ) -> str:
        """Publishes the standard message `{type, data, timestamp, id, level}`, with `type` as event type.

        Returns the cursor. `timestamp` is now, in UTC (ISO 8601 with milliseconds); `id` is random.

        :param level: debug, info, warning, error or critical.
        :raises InvalidEvent: naming the wrong field.
        :raises BrokerUnavailable: it is stored zero or one times.
        """
        if level not in LEVELS:
            raise InvalidEvent("level", f"is {level!r}, must be one of {', '.join(LEVELS)}")
        message = {
            "type": type,
            "data": data,
            "timestamp": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
            "id": uuid.uuid4().hex,
            "level": level,
        }
        return self.publish(message, type, channel=channel, id=message["id"])

    def send_to_user(
        self, user_id: object, data: Any, type: str | None = None, *, compress: str | None = None
    ) -> str:
        """Publishes to the channel `user:<user_id>`, which only that user may listen to; returns the cursor.

        The history keeps the event, so a user who is away gets it on reconnecting. Raises as `publish` does.
        """
        return self.publish(data, type, channel=f"user:{user_id}", compress=compress)

    def broadcast(self, data: Any, type: str | None = None, *, compress: str | None = None) -> str:
        """Publishes to every open stream, whatever its channels; returns the cursor.

        Streams that resume get the broadcasts they missed. Raises as `publish` does.
        """
        batch = Batch(self)
        batch.publish(data, type, compress=compress)
        return self._send([batch.publications[0]._replace(channels=(BROADCAST,))], None)[0]

    def disconnect(
        self,
        *,
        user_id: object = None,
        connection: str | None = None,
        channel: str | None = None,
        reconnect: bool = True,
    ) -> None:
        """Ends streams on all workers, after they got the events published before this call.

        All arguments must match: `user_id=7, channel="news"` ends the streams of user 7 that listen to news.

        :param reconnect: False asks the clients not to reconnect; it does not refuse those that do.
        :raises InvalidEvent: without a user_id, a connection and a channel; and if one of them is empty.
        :raises BrokerUnavailable: the streams end once or not at all.
        """
        which = {
            "user_id": None if user_id is None else str(user_id),
            "connection": connection,
            "channel": None if channel is None else checked_channel(channel),
        }
        if which["user_id"] == "" or connection == "":
            # A handler that left the empty argument out would close the streams of everybody else too.
            raise InvalidEvent("disconnect", "got an empty user_id or connection, which no stream has")
        if all(value is None for value in which.values()):
            raise InvalidEvent("disconnect", "needs a user_id, a connection or a channel")
        self.command("disconnect", reconnect=reconnect, **which)

    def revoke(self, user_id: object, channel: str | None = None) -> None:
        """Takes a channel from a user's open streams on all workers, or ends these streams, at once.

        A stream that keeps other channels gets `sse.error` 1201. A stream that has no channel left gets
        `sse.close`, which asks it not to reconnect. Without `channel`, all of the user's streams end so. New
        streams of the user are checked as always.

        :raises InvalidEvent: when `channel` is not a channel name.
        :raises BrokerUnavailable: the channel is taken once or not at all.
        """
        name = None if channel is None else checked_channel(channel)
        self.command(REVOKE, user_id=str(user_id), channel=name, reason="revoked")

    def join(
        self,
        connection: str,
        channel: str | Iterable[str],
        *,
        since: str | None = None,
        last: int | None = None,
    ) -> None:
        """Lets an open stream join channels, on any worker. Its client gets `sse.channels`.

        `@sse.authorize` is not called for these channels, neither now nor when rights are checked again. The
        stream keeps them until it ends, or until `revoke` or `leave`.

        :param connection: the id in `sse.open`.
        :param since: a cursor: first the stream gets the channels' events after it; `earliest`: all kept.
        :param last: instead of `since`, the number of newest events that the stream gets first.
        :raises InvalidEvent: for a wrong channel name, and when both `since` and `last` are given.
        :raises BrokerUnavailable: the stream joins once or not at all.
        """
        self.change(connection, checked_channels(channel), (), since=since, last=last)

    def leave(self, connection: str, channel: str | Iterable[str]) -> None:
        """Lets an open stream leave channels, on any worker. Its client gets `sse.channels`.

        :param connection: the id in `sse.open`.
        :raises InvalidEvent: for a wrong channel name.
        :raises BrokerUnavailable: the stream leaves once or not at all.
        """
        self.change(connection, (), checked_channels(channel))

    def change(
        self,
        connection: str,
        join: Sequence[str],
        leave: Sequence[str],
        *,
        since: str | None = None,
        last: int | None = None,
        vouched: bool = True,
    ) -> None:
        """Lets an open stream join and leave channels in one step.

        :param vouched: True when the app itself wants the change. Then `@sse.authorize` is not called for
            it later either.
        """
        if since is not None and last is not None:
            raise InvalidEvent("since", "cannot be given together with last")
        self.command(
            "channels",
            connection=connection,
            join=list(join),
            leave=list(leave),
            since=since,
            last=last,
            vouched=vouched,
        )

    def command(self, name: str, **arguments: Any) -> str:
        """Sends a command to every worker that has streams; returns the cursor. Workers without a handler for
        `name` ignore it.

        :param arguments: values that JSON can hold.
        :raises InvalidEvent: for other values.
        :raises BrokerUnavailable: each worker gets the command once or not at all.
        """
        publication = command_publication(Command(name, arguments))
        return str(self._broker.publish([publication])[0])

    def close(self) -> None:
        """Closes the broker's connections. May be called twice."""
        self._broker.close()

    def _send(self, publications: list[Publication], id: str | None) -> list[str]:
        once = None if id is None else checked_once(id)
        cursors = list(map(str, self._broker.publish(publications, once)))
        self._published(len(cursors))
        return cursors


class Batch:
    """Events to be published together, 1000 at most. `cursors` is set when they are published."""

    def __init__(self, announcer: MessageAnnouncer) -> None:
        self._announcer = announcer
        self.publications: list[Publication] = []
        self.cursors: list[str] = []

    def publish(
        self,
        data: Any,
        type: str | None = None,
        *,
        channel: str | Iterable[str] = DEFAULT_CHANNEL,
        retry: int | None = None,
        exclude: str | Iterable[str] | None = None,
        ttl: float | None = None,
        compress: str | None = None,
    ) -> None:
        """Adds an event; the arguments are those of `MessageAnnouncer.publish`. Does not block.

        :raises InvalidEvent: naming the wrong field, or when the batch is full.
        :raises MessageTooLarge: with both sizes.
        """
        if len(self.publications) >= MAX_BATCH:
            raise InvalidEvent("batch", f"holds {MAX_BATCH} events already; publish in several batches")
        event = make_event(data, type, retry=retry, dumps=self._announcer._dumps)
        if compress is not None:
            event = _compressed(event, compress)
        size, max_message = len(event.data.encode()), self._announcer._max_message
        if size > max_message:
            raise MessageTooLarge(size, max_message)
        publication = Publication(event.encode(), checked_channels(channel))
        if exclude is not None or ttl is not None:
            publication = publication._replace(exclude=checked_exclude(exclude), ttl=checked_ttl(ttl))
        self.publications.append(publication)


def _compressed(event: Event, compress: str) -> Event:
    """The event with its text in an envelope of `payload`, when that makes it smaller."""
    if compress != "auto":
        raise InvalidEvent("compress", f"is {compress!r}, must be 'auto' or None")
    return event._replace(data=payload.compress_text(plain_line_ends(event.data)))
