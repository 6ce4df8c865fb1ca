"""The announcer: publishes events. It needs no Flask app and no gevent."""

from __future__ import annotations

import contextlib
import copy
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from .. import payload
from ..config import Settings
from ..errors import InvalidEvent, MessageTooLarge, shown
from ..protocol.channel import BROADCAST, checked_channels
from ..protocol.data import Dumps, flask_dumps
from ..protocol.entry import Publication
from ..protocol.event import checked_exclude, checked_once, checked_ttl, checked_type, make_event
from ..protocol.user import user_channel
from .base import Broker
from .commander import Commander
from .tracing import Tracing, tracing_of
from .url import connect_broker

DEFAULT_CHANNEL = "sse"
#: At most this many events in one batch. While the broker stores a batch, it does nothing else.
MAX_BATCH = 1000
#: At most this many entries in one batch: one for each channel of each event.
MAX_STORED = 10_000
#: What an event of `publish_many` may have, and an example for error messages.
FIELDS = frozenset(("data", "type", "channel", "retry", "exclude", "ttl", "compress"))
EXAMPLE = '{"data": 1, "channel": "news"}'
LEVELS = ("debug", "info", "warning", "error", "critical")


class MessageAnnouncer(Commander):
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
        #: Traces a share of the events; None if no event is traced.
        self.tracing = tracing_of(settings.trace)

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

    @property
    def broker(self) -> Broker:
        """The broker that keeps and announces the events."""
        return self._broker

    @property
    def max_message(self) -> int:
        """The largest text of one event, in bytes."""
        return self._max_message

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
        batch = Batch(self, self.tracing)
        batch.publish(data, type, channel=channel, retry=retry, exclude=exclude, ttl=ttl, compress=compress)
        return self._send(batch, id)[0]

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
        batch = Batch(self, self.tracing)
        batch.publish_many(events)
        return self._send(batch, id)

    def publish_each(self, events: Sequence[tuple[Publication, str]]) -> None:
        """Publishes several events, each in a step of its own. See `Broker.publish_each`."""
        self._broker.publish_each(events)
        self._published(len(events))

    @contextlib.contextmanager
    def batch(self, *, id: str | None = None) -> Iterator[Batch]:
        """Gathers events and publishes them together at the end of the `with` block.

        Yields a `Batch`. `Batch.publish` does not block, and `Batch.cursors` is set after the block. If the
        block raises an exception, no event is published.

        :param id: one idempotency id for all the events together.
        :raises BrokerUnavailable: at the end of the block, if the broker does not reply in time. All events
            are then stored or none.
        """
        batch = Batch(self, self.tracing)
        yield batch
        batch.cursors = self._send(batch, id)

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
        batch = Batch(self, self.tracing)
        return self._send(batch, batch.notify(type, data, level=level, channel=channel))[0]

    def send_to_user(
        self, user_id: object, data: Any, type: str | None = None, *, compress: str | None = None
    ) -> str:
        """Publishes an event to the channel `user:<user_id>` and returns its cursor.

        Only the user with this id may listen to the channel. A user who is offline gets the event from the
        history on reconnecting. Raises the same exceptions as `publish`, and TypeError as `revoke` does.
        """
        return self.publish(data, type, channel=user_channel(user_id), compress=compress)

    def broadcast(self, data: Any, type: str | None = None, *, compress: str | None = None) -> str:
        """Publishes an event to every open stream, whatever its channels, and returns the event's cursor.

        Streams that resume get the broadcasts that they missed. Raises the same exceptions as `publish`.
        """
        batch = Batch(self, self.tracing)
        batch.broadcast(data, type, compress=compress)
        return self._send(batch, None)[0]

    def close(self) -> None:
        """Closes the broker's connections. A second call does nothing."""
        self._broker.close()

    def _send(self, batch: Batch, id: str | None) -> list[str]:
        once = None if id is None else checked_once(id)
        cursors = list(map(str, self._broker.publish(batch.publications, once)))
        self._published(len(cursors))
        if batch.span is not None:
            batch.span.end()
        return cursors


class Batch:
    """At most 1000 events that are published together. `cursors` is set when the events are published.

    :param tracing: decides whether the events are traced; None: they are not. If they are traced, `span` is
        their span, and the caller must end the span.
    """

    def __init__(self, announcer: MessageAnnouncer, tracing: Tracing | None = None) -> None:
        self._announcer = announcer
        self.span = None if tracing is None else tracing.begin()
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
        if self.span is not None:
            event = event._replace(traceparent=self.span.traceparent)
        publication = Publication(event.encode(), checked_channels(channel))
        self._stored += len(publication.channels)
        if len(self.publications) >= MAX_BATCH or self._stored > MAX_STORED:
            most = f"{MAX_BATCH} events, or {MAX_STORED} if an event counts once for each of its channels"
            raise InvalidEvent("batch", f"can have at most {most}; publish in several batches")
        if exclude is not None or ttl is not None:
            publication = publication._replace(exclude=checked_exclude(exclude), ttl=checked_ttl(ttl))
        self.publications.append(publication)

    def publish_many(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Adds several events to the batch. Each event is a mapping with arguments of `publish`.

        :raises InvalidEvent: if an event is not valid; the message names the event and its field.
        """
        if not isinstance(events, Iterable) or isinstance(events, (str, bytes, Mapping)):
            raise InvalidEvent("events", f"is {shown(events)}, must be a list such as [{EXAMPLE}]")
        for at, event in enumerate(events):
            try:
                _check_fields(event)
                self.publish(**event)
            except InvalidEvent as error:
                problem = f"one call {error.problem}" if error.field == "batch" else str(error)
                raise InvalidEvent(f"events[{at}]", problem) from error
            except TypeError as error:
                raise InvalidEvent(f"events[{at}]", str(error)) from error

    def notify(
        self, type: str, data: Any, *, level: str = "info", channel: str | Iterable[str] = DEFAULT_CHANNEL
    ) -> str:
        """Adds the standard message of `MessageAnnouncer.notify`, and returns the message's random id.

        :raises InvalidEvent: if an argument is not valid, or if the batch is full.
        """
        if level not in LEVELS:
            raise InvalidEvent("level", f"is {shown(level)}, must be one of {', '.join(LEVELS)}")
        if type is not None:
            checked_type(type)  # before `data`, which contains it
        message: dict[str, Any] = {
            "type": type,
            "data": data,
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "id": uuid.uuid4().hex,
            "level": level,
        }
        self.publish(message, type, channel=channel)
        return str(message["id"])

    def send_to_user(
        self, user_id: object, data: Any, type: str | None = None, *, compress: str | None = None
    ) -> None:
        """Adds an event for the channel `user:<user_id>`. Raises as `publish` does, and TypeError as `revoke`
        does."""
        self.publish(data, type, channel=user_channel(user_id), compress=compress)

    def broadcast(self, data: Any, type: str | None = None, *, compress: str | None = None) -> None:
        """Adds an event for every open stream, whatever its channels. Raises as `publish` does."""
        self.publish(data, type, compress=compress)
        self.publications[-1] = self.publications[-1]._replace(channels=(BROADCAST,))


def _check_fields(event: object) -> None:
    """Checks that an event of `publish_many` is a mapping with arguments of `publish`.

    :raises TypeError: if the event is something else; the message says what it must be.
    """
    if not isinstance(event, Mapping):
        raise TypeError(f"is {shown(event)}, must be a mapping such as {EXAMPLE}")
    for name in event.keys() - FIELDS:
        if name == "id":
            raise TypeError("id: one of several events cannot have its own id; all of them share one id")
        raise TypeError(f"has the unknown field {shown(name)}; the fields are {', '.join(sorted(FIELDS))}")
    if "data" not in event:
        raise TypeError("data: is missing")
