"""The Flask blueprint that an app registers, with the decorators and methods that an app uses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from flask import Flask, current_app

from .auth import tickets
from .auth.decorators import Decorators
from .brokers.announcer import DEFAULT_CHANNEL, Batch, MessageAnnouncer
from .cli import add_commands
from .monitoring import signals
from .presence import presence
from .protocol.channel import checked_channel
from .protocol.user import checked_user_id
from .web.flask_sse import Gone
from .web.rendered_pages import RenderedPages
from .web.routes import EXTENSION
from .web.run_views import RunViews
from .web.stream import StreamEndpoint

if TYPE_CHECKING:
    from .outbox.transaction import Transaction


class SSEBlueprint(Decorators, RenderedPages, RunViews):
    """Pushes events to browsers. When it is registered on an app, `GET <prefix>` opens streams, and methods
    such as `publish` send events to them.

    One blueprint may be registered on several apps, and one app may register several blueprints. Each pair of
    an app and a blueprint has its own streams and connections. The decorators, `register` and `init_app` work
    anywhere. Every other method needs an app context and raises RuntimeError without an app context.

    :param name: the blueprint's name. The endpoints (`sse.stream`), the commands (`flask sse …`) and the
        object in templates (`sse.url()`) have this name.
    :param options: the options of Flask's Blueprint.
    """

    def __init__(self, name: str = "sse", import_name: str = __name__, **options: Any) -> None:
        super().__init__(name, import_name, **options)
        add_commands(self.cli, self)

    def init_app(self, app: Flask) -> None:
        """Registers the blueprint under `SSE_PUSH_URL_PREFIX` (default `/stream`). Opens no connection.

        :raises ConfigError: if a setting is invalid; the message names it.
        """
        app.register_blueprint(self, url_prefix="")  # `register` reads the setting

    #: What Flask-SSE's blueprint has beyond this one.
    messages = Gone("a stream of channels is `return sse.stream()`; elsewhere, `flask sse tail` shows events")
    redis = Gone("for calls of your own make a client: redis.Redis.from_url(app.config['REDIS_URL'])")

    def add_url_rule(
        self, rule: str, endpoint: str | None = None, view_func: Any = None, *args: Any, **options: Any
    ) -> None:
        """Adds a route, as Flask's method does.

        :param view_func: if it is `sse.stream`, as in apps of Flask-SSE, the route opens streams.
        """
        view = self._stream if view_func == self.stream else view_func
        super().add_url_rule(rule, endpoint, view, *args, **options)

    def _examine(self) -> list[dict[str, str]]:
        from .cli.doctor.inside import examine_inside  # only the admin page needs it

        return [finding._asdict() for finding in examine_inside(self._endpoint.services)]

    # -- publishing --------------------------------------------------------------------------------------

    @property
    def announcer(self) -> MessageAnnouncer:
        """The announcer that publishes events for the current app."""
        return self._endpoint.services.publishing.announcer

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
        """Stores one event and sends it to every stream of its channels. Returns the event's cursor.

        `MessageAnnouncer.publish` explains the arguments. The app's JSON provider turns the data into JSON.
        Sends the signal `event_published`, whose receivers run later, in a thread of their own. Blocks until
        the broker has stored the event, but at most `SSE_PUSH_PUBLISH_TIMEOUT` seconds.

        :raises InvalidEvent: if a field is invalid; the message names the field.
        :raises MessageTooLarge: if the data is too large; the message gives the size and the limit in bytes.
        :raises BrokerUnavailable: if the broker does not answer in time; the event is then stored once or not
            at all. If the event has an `id`, it is safe to publish the event again.
        """
        try:  # does not use `self._endpoint`, to save a call for each event
            endpoint: StreamEndpoint = current_app.extensions[EXTENSION][self]
        except (RuntimeError, KeyError):
            raise self._no_endpoint() from None
        cursor = endpoint.services.publishing.announcer.publish(
            data, type, channel=channel, id=id, retry=retry, exclude=exclude, ttl=ttl, compress=compress
        )
        if signals.event_published.receivers:
            signals.send(signals.event_published, channel=channel, type=type, cursor=cursor)
        return cursor

    def publish_many(self, events: Iterable[Mapping[str, Any]], *, id: str | None = None) -> list[str]:
        """Stores several events in one step: all of them or none. Returns their cursors in the same order.

        Blocks and raises as `publish` does. `MessageAnnouncer.publish_many` explains the arguments.
        """
        return self.announcer.publish_many(events, id=id)

    def batch(self, *, id: str | None = None) -> AbstractContextManager[Batch]:
        """Collects events in a `with` block: `with sse.batch() as batch: batch.publish(…)`.

        The end of the block publishes the events together, all or none; it blocks and raises as `publish`
        does. Afterwards `batch.cursors` has the cursors of the events. See `MessageAnnouncer.batch`.
        """
        return self.announcer.batch(id=id)

    def notify(
        self, type: str, data: Any, *, level: str = "info", channel: str | Iterable[str] = DEFAULT_CHANNEL
    ) -> str:
        """Publishes the standard message `{type, data, timestamp, id, level}`. Returns the event's cursor.

        Blocks and raises as `publish` does. `MessageAnnouncer.notify` explains the fields.
        """
        return self.announcer.notify(type, data, level=level, channel=channel)

    def send_to_user(
        self, user_id: object, data: Any, type: str | None = None, *, compress: str | None = None
    ) -> str:
        """Publishes an event to the channel `user:<user_id>`, which only this user may listen to. Returns the
        event's cursor. Blocks and raises as `publish` does."""
        return self.announcer.send_to_user(user_id, data, type, compress=compress)

    def broadcast(self, data: Any, type: str | None = None, *, compress: str | None = None) -> str:
        """Publishes an event to every open stream, whatever its channels. Returns the event's cursor. Blocks
        and raises as `publish` does."""
        return self.announcer.broadcast(data, type, compress=compress)

    def after_commit(self, session: Any) -> Transaction:
        """Returns an object whose `publish` publishes after the commit of a SQLAlchemy session.

        It also has `publish_many`, `notify`, `send_to_user` and `broadcast`. The events of one transaction
        are published in one atomic batch after its commit, and forgotten with a rollback. Each method checks
        its arguments at once. If the broker does not answer after the commit, the events are lost, and the
        log has an ERROR with their types and channels; an `Outbox` loses none. Needs the extra `database`.

        :param session: a session, such as `db.session` of Flask-SQLAlchemy; also an `AsyncSession`.
        :raises MissingExtra: if SQLAlchemy is not installed.
        :raises TypeError: if `session` is no session.
        """
        from .outbox import after_commit

        return after_commit(session, self.announcer)

    # -- open streams ------------------------------------------------------------------------------------

    def disconnect(
        self,
        *,
        user_id: object = None,
        connection: str | None = None,
        channel: str | None = None,
        reconnect: bool = True,
    ) -> None:
        """Closes the streams that match all given arguments, on all workers.

        Blocks as long as one `publish`. `MessageAnnouncer.disconnect` explains the arguments and errors.
        """
        self.announcer.disconnect(
            user_id=user_id, connection=connection, channel=channel, reconnect=reconnect
        )

    def revoke(self, user_id: object, channel: str | None = None) -> None:
        """Removes a channel from all open streams of a user, on all workers.

        Without `channel`, closes all streams of the user. Blocks as long as one `publish`.
        `MessageAnnouncer.revoke` explains which events the clients get.
        """
        self.announcer.revoke(user_id, channel)

    def join(
        self,
        connection: str,
        channel: str | Iterable[str],
        *,
        since: str | None = None,
        last: int | None = None,
    ) -> None:
        """Adds channels to an open stream, on any worker.

        Blocks as long as one `publish`. `MessageAnnouncer.join` explains the arguments and errors.
        """
        self.announcer.join(connection, channel, since=since, last=last)

    def leave(self, connection: str, channel: str | Iterable[str]) -> None:
        """Removes channels from an open stream, on any worker.

        Blocks as long as one `publish`. `MessageAnnouncer.leave` explains the errors.
        """
        self.announcer.leave(connection, channel)

    def connections(self, channel: str | None = None, user_id: object = None) -> list[dict[str, Any]]:
        """Returns the open streams of all workers, one dict for each stream, in no particular order.

        Each dict has the keys `connection`, `user_id`, `channels`, `address`, `user_agent`, `since` (Unix
        time in seconds), `events` and `bytes` (sent so far), `buffered` (bytes that wait for the client) and
        `worker`. Blocks until all workers have answered: for up to two seconds if a worker
        was just killed, otherwise for less time.

        :param channel: lists only the streams that listen to this channel.
        :param user_id: lists only the streams of this user.
        :raises TypeError: if `user_id` is not the id of a user: a string, a whole number or a UUID.
        :raises BrokerUnavailable: if the broker does not answer.
        """
        queries = self._endpoint.services.streaming.worker_queries
        return queries.connections(channel, None if user_id is None else checked_user_id(user_id))

    def presence(self, channel: str, users: int = 1000) -> dict[str, Any]:
        """Returns which users are in a channel on all workers, as a dict.

        The dict has the keys `channel`, `count` (how many users) and `users` (their ids, sorted). The channel
        must match `SSE_PUSH_PRESENCE_CHANNELS`. Blocks for two calls to the broker.

        :param users: at most this many user ids are returned. `count` always counts all users.
        :raises BrokerUnavailable: if the broker does not answer.
        """
        table = presence.table(checked_channel(channel))
        counts = self._endpoint.services.publishing.broker.counts
        return {"channel": channel, "count": counts.size(table), "users": sorted(counts.names(table, users))}

    def stats(self) -> dict[str, Any]:
        """Returns figures of this worker process, as a dict. Does not block.

        The keys are `streams`, `groups` (of streams with the same channels), `channels`, `connected` (whether
        the link to the broker works), `heard_ago` (seconds since the last message on the link, or None),
        `probed_ago` (seconds since the last probe came back, or None), `reconnects` and `history_calls`.
        """
        return self._endpoint.services.streaming.hub.stats()

    # -- tickets -------------------------------------------------------------------------------

    def ticket(self, user: Any, channels: str | Iterable[str], seconds: float = tickets.LONGEST) -> str:
        """Returns a ticket that opens one stream: `new EventSource(url + "?ticket=" + ticket)`.

        Anybody who has the ticket can use it, but only once. So give tickets out only in a page or an API
        that knows its user. `revoke` and a logout end unused tickets. Blocks for one call to the broker.

        :param user: a user object, a user id, or None for a visitor without a user.
        :param channels: the channels that the stream may have. If the URL names no channels, the stream has
            all of them. The user must be allowed to listen to them now.
        :param seconds: how long the ticket is valid, in seconds; at most 60.
        :raises Refused: 401 or 403, if the user may not listen to one of the channels. Without a handler in
            the app, this is the response.
        :raises BrokerUnavailable: if the broker does not answer.
        """
        return self._endpoint.ticket(user, channels, seconds)
