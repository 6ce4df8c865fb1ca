"""The message announcer: the publishing side. It needs no Flask app and no gevent."""

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
#: Events one batch may hold: they go to the broker in one step, which blocks it meanwhile.
MAX_BATCH = 1000
LEVELS = ("debug", "info", "warning", "error", "critical")


class MessageAnnouncer:
    """Publishes events from any process: views, Celery tasks, cron jobs, shells.

    All methods block until the broker has stored the event, at most `SSE_PUSH_PUBLISH_TIMEOUT` seconds.
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
        self._published = published  # told how many events went out

    @classmethod
    def from_url(cls, url: str, **config: Any) -> MessageAnnouncer:
        """An announcer without any app. Connects with its first publish; threads may share it.

        :param url: the app's `SSE_PUSH_BROKER_URL`.
        :param config: further settings by their keys, e.g. `SSE_PUSH_PREFIX="shop"`; also read from the
            environment. They must be the same as the app's.
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
        :param id: an idempotency id: publishing again with the same one within the history's time stores
            nothing and returns the first cursor, unless the broker lost its data in between.
        :param retry: sets the clients' reconnection time, in milliseconds.
        :param exclude: connection ids or user ids that do not get the event.
        :param ttl: seconds after which it is no longer replayed; 0 means live only.
        :param compress: "auto" sends text over 1024 bytes as an envelope of `payload` when that is smaller;
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

        :param events: the arguments of `publish` but for `id` as mappings, such as
            `{"data": 1, "channel": "news"}`; 1000 at most.
        :param id: an idempotency id for all of them together.
        :raises InvalidEvent: saying which event is wrong; then none is published.
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
        """Gathers events and publishes them together when the block ends; none if it raises.

        Yields a `Batch`, whose `publish` does not block; its `cursors` are there after the block.

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

        Returns the cursor. `timestamp` is the time now in UTC (ISO 8601, milliseconds), `id` a random one.

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

        It is kept as any event: a user who is away gets it on coming back. Raises what `publish` does.
        """
        return self.publish(data, type, channel=f"user:{user_id}", compress=compress)

    def broadcast(self, data: Any, type: str | None = None, *, compress: str | None = None) -> str:
        """Publishes to every open stream, whatever its channels; returns the cursor.

        Streams that resume get the broadcasts they missed. Raises what `publish` does.
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
        """Ends streams on all workers of all machines, after the events published before.

        What is given narrows it: `user_id=7, channel="news"` ends those of user 7 that listen to news.

        :param reconnect: False tells the clients to stay away; it does not keep them out.
        :raises InvalidEvent: when nothing says which streams.
        :raises BrokerUnavailable: it happens once or not at all.
        """
        wanted = {
            "user_id": None if user_id is None else str(user_id),
            "connection": connection,
            "channel": None if channel is None else checked_channel(channel),
        }
        if not any(wanted.values()):
            raise InvalidEvent("disconnect", "needs a user_id, a connection or a channel")
        self.command("disconnect", reconnect=reconnect, **wanted)

    def revoke(self, user_id: object, channel: str | None = None) -> None:
        """Takes a channel from a user's open streams on all workers, or ends them all, at once.

        A stream that keeps other channels is told by `sse.error` 1201. One that has none left is told by
        `sse.close` to stay away; without `channel` all of them are. New streams are asked about as ever.

        :raises InvalidEvent: for a name that is no channel's.
        :raises BrokerUnavailable: it happens once or not at all.
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
        """Has an open stream join channels, wherever it is; it tells its client by `sse.channels`.

        Nobody is asked whether it may; but where rights are checked again, one that it may not have goes.

        :param connection: the id in `sse.open`.
        :param since: the cursor after which events of the channels are sent first; `earliest` is all kept.
        :param last: instead, how many of the newest.
        :raises InvalidEvent: for a name that is no channel's, and for both `since` and `last`.
        :raises BrokerUnavailable: it happens once or not at all.
        """
        self.change(connection, checked_channels(channel), (), since=since, last=last)

    def leave(self, connection: str, channel: str | Iterable[str]) -> None:
        """Has an open stream leave channels, wherever it is; it tells its client by `sse.channels`.

        :param connection: the id in `sse.open`.
        :raises InvalidEvent: for a name that is no channel's.
        :raises BrokerUnavailable: it happens once or not at all.
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
        """Has an open stream join and leave channels in one step.

        :param vouched: whether the app wants it so: then `@sse.authorize` is not asked about it later either.
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
        """Tells every worker that has streams to do something it has a handler for; returns the cursor.

        :param arguments: as JSON knows them.
        :raises InvalidEvent: when they are not.
        :raises BrokerUnavailable: each worker gets it once or not at all.
        """
        publication = command_publication(Command(name, arguments))
        return str(self._broker.publish([publication])[0])

    def close(self) -> None:
        """Lets go of the broker's connections; may be called twice."""
        self._broker.close()

    def _send(self, publications: list[Publication], id: str | None) -> list[str]:
        once = None if id is None else checked_once(id)
        cursors = list(map(str, self._broker.publish(publications, once)))
        self._published(len(cursors))
        return cursors


class Batch:
    """Events that wait to be published together, 1000 at most. `cursors` is filled when they are."""

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
        self.publications.append(
            Publication(
                event.encode(),
                checked_channels(channel),
                () if exclude is None else checked_exclude(exclude),
                None if ttl is None else checked_ttl(ttl),
            )
        )


def _compressed(event: Event, compress: str) -> Event:
    """The event with its text in an envelope of `payload`, when that makes it smaller."""
    if compress != "auto":
        raise InvalidEvent("compress", f"is {compress!r}, must be 'auto' or None")
    return event._replace(data=payload.compress_text(plain_line_ends(event.data)))
