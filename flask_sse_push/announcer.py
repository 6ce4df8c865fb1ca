"""The announcer: publishes events and commands. It needs no Flask app and no gevent."""

from __future__ import annotations

import contextlib
import copy
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from . import payload
from .brokers.base import Broker
from .brokers.url import connect_broker
from .config import Settings
from .errors import InvalidEvent, MessageTooLarge, shown
from .protocol.channel import BROADCAST, checked_channel, checked_channels
from .protocol.command import REVOKE, Command, command_publication
from .protocol.data import Dumps, flask_dumps
from .protocol.entry import Publication
from .protocol.event import checked_exclude, checked_once, checked_ttl, make_event
from .protocol.user import checked_user_id

DEFAULT_CHANNEL = "sse"
#: At most this many events in one batch. While the broker stores a batch, it does nothing else.
MAX_BATCH = 1000
#: At most this many entries in one batch: one for each channel of each event.
MAX_STORED = 10_000
LEVELS = ("debug", "info", "warning", "error", "critical")


class MessageAnnouncer:
    """Publishes events from any process: views, Celery tasks, cron jobs, shells.

    Several threads may share one announcer. All methods block until the broker has stored the event, at
    most `SSE_PUSH_PUBLISH_TIMEOUT` seconds.

    :param dumps: writes data that is not a string as JSON.
    :param published: is called after each publish with the number of published events.
    """

    def __init__(
        self,
        broker: Broker,
        settings: Settings,
        dumps: Dumps = flask_dumps,
        published: Callable[[int], None] = lambda events: None,
    ) -> None:
        self._broker = broker
        self._max_message = settings.max_message
        self._dumps = dumps
        self._published = published

    @classmethod
    def from_url(cls, url: str, dumps: Dumps | None = None, **config: Any) -> MessageAnnouncer:
        """Returns an announcer that needs no app. The announcer connects to the broker at its first publish.

        :param url: the app's `SSE_PUSH_BROKER_URL`.
        :param dumps: writes data that is not a string as JSON. The default writes as Flask's `app.json.dumps`
            does; if the app has a JSON provider of its own, pass the same function here.
        :param config: further settings, such as `SSE_PUSH_PREFIX="shop"`. Settings that are left out are read
            from the environment. All settings must be the same as in the app.
        :raises ConfigError: if a setting is not valid, or if a keyword is not the name of a setting.
        """
        settings = Settings.for_url(url, config)
        return cls(connect_broker(settings), settings, dumps or flask_dumps)

    def with_dumps(self, dumps: Dumps) -> MessageAnnouncer:
        """Returns an announcer with the same connections that writes data as JSON with `dumps`."""
        vars(other := copy.copy(self)).update(_dumps=dumps)
        return other

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
        """Stores one event, sends it to every stream that listens to its channels, and returns its cursor.

        :param data: the content; a string is sent as it is, any other value as JSON.
        :param type: the event type that browsers listen for; None means the standard type `message`.
        :param channel: one channel or several. A stream that listens to several of the channels gets the
            event once.
        :param id: an idempotency id. A second publish with the same id stores nothing and returns the cursor
            of the first. The broker remembers ids for `SSE_PUSH_HISTORY_TTL`, unless its data is lost.
        :param retry: how long clients wait before they reconnect, in milliseconds.
        :param exclude: connection ids or user ids that do not get the event.
        :param ttl: how long streams that connect later still get the event, in seconds; 0 means that only
            streams that are open now get the event.
        :param compress: "auto" compresses text of more than 1024 bytes into an envelope (see `payload`) if
            the envelope is smaller. Clients other than PushClient must unpack envelopes themselves.
        :raises InvalidEvent: if an argument is not valid; the message names the argument.
        :raises MessageTooLarge: if the event is bigger than `SSE_PUSH_MAX_MESSAGE`.
        :raises BrokerUnavailable: if the broker does not reply in time. The event is then stored once or not
            at all; with `id` it is safe to publish again.
        """
        batch = Batch(self)
        batch.publish(data, type, channel=channel, retry=retry, exclude=exclude, ttl=ttl, compress=compress)
        return self._send(batch.publications, id)[0]

    def publish_many(self, events: Iterable[Mapping[str, Any]], *, id: str | None = None) -> list[str]:
        """Stores several events in one step, in their order, or none of them. Returns their cursors.

        :param events: at most 1000 events. Each event is a mapping with arguments of `publish` except `id`,
            such as `{"data": 1, "channel": "news"}`. Counted once for each of their channels, at most 10,000.
        :param id: one idempotency id for all the events together.
        :raises InvalidEvent: if an event is not valid; the message names the event and its field. No event
            is published then.
        :raises BrokerUnavailable: if the broker does not reply in time. All events are then stored or none;
            with `id` it is safe to publish again.
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
        """Gathers events and publishes them together at the end of the `with` block.

        Yields a `Batch`. `Batch.publish` does not block, and `Batch.cursors` is set after the block. If the
        block raises an exception, no event is published.

        :param id: one idempotency id for all the events together.
        :raises BrokerUnavailable: at the end of the block, if the broker does not reply in time. All events
            are then stored or none.
        """
        batch = Batch(self)
        yield batch
        batch.cursors = self._send(batch.publications, id)

    def notify(
        self, type: str, data: Any, *, level: str = "info", channel: str | Iterable[str] = DEFAULT_CHANNEL
    ) -> str:
        """Publishes the standard message `{type, data, timestamp, id, level}` and returns its cursor.

        `type` is also the event type. `timestamp` is the current time, in UTC (ISO 8601 with milliseconds),
        and `id` is random.

        :param level: debug, info, warning, error or critical.
        :raises InvalidEvent: if an argument is not valid; the message names the argument.
        :raises BrokerUnavailable: if the broker does not reply in time; the message is stored once or not at
            all.
        """
        if level not in LEVELS:
            raise InvalidEvent("level", f"is {shown(level)}, must be one of {', '.join(LEVELS)}")
        message = {
            "type": type,
            "data": data,
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "id": uuid.uuid4().hex,
            "level": level,
        }
        return self.publish(message, type, channel=channel, id=message["id"])

    def send_to_user(
        self, user_id: object, data: Any, type: str | None = None, *, compress: str | None = None
    ) -> str:
        """Publishes an event to the channel `user:<user_id>` and returns its cursor.

        Only the user with this id may listen to the channel. A user who is offline gets the event from the
        history on reconnecting. Raises the same exceptions as `publish`, and TypeError as `revoke` does.
        """
        return self.publish(data, type, channel=f"user:{checked_user_id(user_id)}", compress=compress)

    def broadcast(self, data: Any, type: str | None = None, *, compress: str | None = None) -> str:
        """Publishes an event to every open stream, whatever its channels, and returns the event's cursor.

        Streams that resume get the broadcasts that they missed. Raises the same exceptions as `publish`.
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
        """Ends streams on all workers. The streams first get all events that were published before this call.

        A stream ends if it matches all arguments: `user_id=7, channel="news"` ends the streams of user 7 that
        listen to news.

        :param reconnect: False asks the clients not to reconnect. A client that reconnects all the same is
            not refused.
        :raises InvalidEvent: if `user_id`, `connection` and `channel` are all missing, if one of them is
            empty, or if `channel` is not a channel name.
        :raises BrokerUnavailable: if the broker does not reply in time. The streams may end or not.
        """
        which = {
            "user_id": None if user_id is None else checked_user_id(user_id),
            "connection": connection,
            "channel": None if channel is None else checked_channel(channel),
        }
        if connection == "" or all(value is None for value in which.values()):
            raise InvalidEvent("disconnect", "needs a user_id, a connection or a channel that is not empty")
        self.command("disconnect", reconnect=reconnect, **which)

    def revoke(self, user_id: object, channel: str | None = None) -> None:
        """Takes a channel from all open streams of a user at once. Without `channel`, ends these streams.

        A stream that has other channels stays open and gets `sse.error` 1201. A stream that has no channel
        left gets `sse.close` and ends; its client is asked not to reconnect. New streams of the user are
        checked as always.

        :raises TypeError: if `user_id` is not the id of a user: a string, a whole number or a UUID.
        :raises InvalidEvent: if `user_id` is empty, or if `channel` is not a channel name.
        :raises BrokerUnavailable: if the broker does not reply in time. The streams then change or not.
        """
        name = None if channel is None else checked_channel(channel)
        self.command(REVOKE, user_id=checked_user_id(user_id), channel=name, reason="revoked")

    def join(
        self,
        connection: str,
        channel: str | Iterable[str],
        *,
        since: str | None = None,
        last: int | None = None,
    ) -> None:
        """Lets an open stream join channels, on whichever worker it is. Its client gets `sse.channels`.

        `@sse.authorize` is not called for these channels, neither now nor when rights are checked again. The
        stream keeps the channels until the stream ends, or until `revoke` or `leave` takes them away.

        :param connection: the id of the stream, which its client got in `sse.open`.
        :param since: a cursor; the stream first gets the events of the channels after this cursor. `earliest`
            means all events in the history.
        :param last: how many of the newest events the stream first gets; cannot be used with `since`.
        :raises InvalidEvent: if a channel name is not valid, or if both `since` and `last` are given.
        :raises BrokerUnavailable: if the broker does not reply in time. The stream then joins or not.
        """
        self.change(connection, checked_channels(channel), (), since=since, last=last)

    def leave(self, connection: str, channel: str | Iterable[str]) -> None:
        """Lets an open stream leave channels, on whichever worker it is. Its client gets `sse.channels`.

        :param connection: the id of the stream, which its client got in `sse.open`.
        :raises InvalidEvent: if a channel name is not valid.
        :raises BrokerUnavailable: if the broker does not reply in time. The stream then leaves or not.
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
        asked: str | None = None,
    ) -> None:
        """Lets an open stream join and leave channels in one step.

        :param asked: a cursor that is older than the app's answer that the stream may join. A channel that
            was revoked after this cursor is not joined. None means that the app itself made the change:
            `@sse.authorize` is then not called for the channels when rights are checked again.
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
            asked=asked,
        )

    def command(self, name: str, **arguments: Any) -> str:
        """Sends a command to every worker that has streams, and returns the cursor of the command.

        A worker that has no handler for `name` ignores the command.

        :param arguments: the arguments of the handler; JSON must be able to represent them.
        :raises InvalidEvent: if an argument cannot be written as JSON.
        :raises BrokerUnavailable: if the broker does not reply in time; workers then get the command or not.
        """
        publication = command_publication(Command(name, arguments))
        return str(self._broker.publish([publication])[0])

    def close(self) -> None:
        """Closes the broker's connections. A second call does nothing."""
        self._broker.close()

    def _send(self, publications: list[Publication], id: str | None) -> list[str]:
        once = None if id is None else checked_once(id)
        cursors = list(map(str, self._broker.publish(publications, once)))
        self._published(len(cursors))
        return cursors


class Batch:
    """At most 1000 events that are published together. `cursors` is set when the events are published."""

    def __init__(self, announcer: MessageAnnouncer) -> None:
        self._announcer = announcer
        self.publications: list[Publication] = []
        self._stored = 0  # how many entries the broker will store
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
        """Adds an event to the batch. Takes the arguments of `MessageAnnouncer.publish`. Does not block.

        :raises InvalidEvent: if an argument is not valid, or if the batch is full.
        :raises MessageTooLarge: if the event is bigger than `SSE_PUSH_MAX_MESSAGE`.
        """
        event = make_event(data, type, retry=retry, dumps=self._announcer._dumps)
        if compress == "auto":
            event = payload.compress_event(event)
        elif compress is not None:
            raise InvalidEvent("compress", f"is {shown(compress)}, must be 'auto' or None")
        size, max_message = len(event.data.encode()), self._announcer._max_message
        if size > max_message:
            raise MessageTooLarge(size, max_message)
        publication = Publication(event.encode(), checked_channels(channel))
        self._stored += len(publication.channels)
        if len(self.publications) >= MAX_BATCH or self._stored > MAX_STORED:
            most = f"{MAX_BATCH} events, or {MAX_STORED} if an event counts once for each of its channels"
            raise InvalidEvent("batch", f"has more than {most}; publish in several batches")
        if exclude is not None or ttl is not None:
            publication = publication._replace(exclude=checked_exclude(exclude), ttl=checked_ttl(ttl))
        self.publications.append(publication)
