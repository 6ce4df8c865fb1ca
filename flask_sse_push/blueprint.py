"""The Flask blueprint: what an app registers, decorates with and calls."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from flask import Flask, Response, current_app
from flask.blueprints import BlueprintSetupState

from .announcer import DEFAULT_CHANNEL, Batch, MessageAnnouncer
from .auth import tickets
from .cli import add_commands
from .config import Settings
from .monitoring import signals
from .presence import presence
from .protocol.channel import checked_channel
from .runs.manager import STOP, Run, run_channel
from .runs.output import Items
from .runs.response import run_body
from .web import page
from .web.routes import EXTENSION, Routes
from .web.stream import HEADERS, StreamEndpoint, StreamResponse

F = TypeVar("F")


class SSEBlueprint(Routes):
    """Pushes events to browsers. Register it on an app: then `GET <prefix>` opens streams, and the methods
    publish.

    One blueprint may be registered on several apps, and one app may register several blueprints: each pair
    has a state of its own. The decorators, `register` and `init_app` work anywhere; every other method needs
    an app context and raises RuntimeError without one.

    :param name: the blueprint's name. It names the endpoints (`sse.stream`), the commands (`flask sse …`) and
        the object in templates (`sse.cursor()`).
    :param options: the options of Flask's Blueprint.
    """

    def __init__(self, name: str = "sse", import_name: str = __name__, **options: Any) -> None:
        super().__init__(name, import_name, **options)
        self.record_once(self._add_to_templates)
        add_commands(self.cli, self)

    def init_app(self, app: Flask) -> None:
        """Registers the blueprint under `SSE_PUSH_URL_PREFIX` (default `/stream`). Opens no connection.

        :raises ConfigError: naming the wrong key.
        """
        app.register_blueprint(self, url_prefix=Settings.load(app.config).url_prefix)

    def _add_to_templates(self, state: BlueprintSetupState) -> None:
        state.app.jinja_env.globals.setdefault(self.name, page.InTemplates(self.cursor))

    # -- decorators --------------------------------------------------------------------------------------

    def authorize(self, allowed: F) -> F:
        """Registers `allowed(user, channel) -> bool`, which decides about every channel that is not public.

        It runs in the request that opens the stream. While the stream is open it runs again from time to
        time, outside any request, in an app context: so use the given `user` (None for nobody), never
        `request` or `current_user`. It may block. An exception fails the request; three in a row for an open
        stream close that stream, and its client connects again. The last function registered counts. Without
        one, only public channels and `user:<own id>` are open.
        """
        self._hooks.authorize = allowed  # type: ignore[assignment]
        return allowed

    def identify(self, who: F) -> F:
        """Registers `who(request) -> user | Identity | None`. With several, the first that returns a user
        counts.

        A user is any object. Its id is the result of flask-login's `get_id()`, else its attribute `id`, else
        its text. Without any function, flask-login's `current_user` is the user.
        """
        self._hooks.identify.append(who)  # type: ignore[arg-type]
        return who

    def load_user(self, load: F) -> F:
        """Registers `load(user_id) -> user | None`, which looks up the present user of a ticket or of an open
        stream. The id is a string. None means that the user is gone.

        It runs outside any request too, in an app context, and may block. Without it, flask-login's
        `user_loader` is used, for flask-login's own users and for tickets.
        """
        self._hooks.load_user = load  # type: ignore[assignment]
        return load

    def authorize_publish(self, allowed: F) -> F:
        """Registers `allowed(user, channel) -> bool`, and so opens `POST <prefix>/publish` to the users that
        it allows. Without it the route answers 404."""
        self._hooks.authorize_publish = allowed  # type: ignore[assignment]
        return allowed

    def authorize_admin(self, allowed: F) -> F:
        """Registers `allowed(user) -> bool`, and so opens `GET <prefix>/stats`, `/metrics` and `/health` to
        the users that it allows. Without it these routes answer 404.

        It runs within the request, so it may also look at `request`, for example at a scraper's token.
        """
        self._hooks.authorize_admin = allowed  # type: ignore[assignment]
        return allowed

    # -- publishing --------------------------------------------------------------------------------------

    @property
    def announcer(self) -> MessageAnnouncer:
        """The announcer of the current app."""
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

        `MessageAnnouncer.publish` explains the arguments; here the app's JSON provider writes the JSON. Sends
        the signal `event_published`. Blocks until the broker has stored the event, at most
        `SSE_PUSH_PUBLISH_TIMEOUT` seconds.

        :raises InvalidEvent: naming the wrong field.
        :raises MessageTooLarge: with the size of the data and the limit, in bytes.
        :raises BrokerUnavailable: the event is stored once or not at all; with `id` it is safe to publish
            again.
        """
        try:  # not by `self._endpoint`, which would cost each event a call
            endpoint: StreamEndpoint = current_app.extensions[EXTENSION][self]
        except (RuntimeError, KeyError):
            raise self._no_endpoint() from None
        cursor = endpoint.services.publishing.announcer.publish(
            data, type, channel=channel, id=id, retry=retry, exclude=exclude, ttl=ttl, compress=compress
        )
        app = current_app._get_current_object()  # type: ignore[attr-defined]
        signals.event_published.send(app, channel=channel, type=type, cursor=cursor)
        return cursor

    def publish_many(self, events: Iterable[Mapping[str, Any]], *, id: str | None = None) -> list[str]:
        """Stores several events in one step, all or none. Returns their cursors in the same order.

        Blocks and raises as `publish` does. `MessageAnnouncer.publish_many` explains the arguments.
        """
        return self.announcer.publish_many(events, id=id)

    def batch(self, *, id: str | None = None) -> AbstractContextManager[Batch]:
        """Collects events in a `with` block: `with sse.batch() as batch: batch.publish(…)`.

        Publishes them together, all or none, when the block ends; that blocks and raises as `publish` does.
        Then `batch.cursors` has their cursors. See `MessageAnnouncer.batch`.
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
        event's cursor. Blocks and raises as `publish` does.
        """
        return self.announcer.send_to_user(user_id, data, type, compress=compress)

    def broadcast(self, data: Any, type: str | None = None, *, compress: str | None = None) -> str:
        """Publishes an event to every open stream, whatever its channels. Returns the event's cursor. Blocks
        and raises as `publish` does.
        """
        return self.announcer.broadcast(data, type, compress=compress)

    # -- runs --------------------------------------------------------------------------------------------

    def stream(self, items: Items) -> Response:
        """Returns a response that streams the items of a generator to this one client. Nothing is stored.

        A string becomes the event `run.text` {"text"}. A pair that begins with a string becomes an event of
        that type. Any other item becomes `run.item`. `run.begin` comes first, and `run.end` {"run", "status",
        "error"} last: its status is `done`, or `failed` when the generator raised. The generator runs outside
        the request, and is closed when the client leaves.

        :param items: a generator, or a function that returns one.
        """
        return StreamResponse(run_body(items, current_app.json.dumps), headers=HEADERS)

    def start(self, items: Items, key: str | None = None) -> Run:
        """Starts a generator in the background, which publishes the events that `stream` describes to the
        channel `run:<key>`. Returns a `Run`, with the key, the channel and a cursor before the first event.

        `@sse.authorize` decides who may listen to the channel, as for any other channel. If nobody can guess
        the keys, `run:*` in `SSE_PUSH_PUBLIC_CHANNELS` is enough. The events are kept like any others. Text
        items that come fast share an event. The generator runs in this worker, in an app context of its own,
        without the request.

        Blocks until `run.begin` is stored: a few times `SSE_PUSH_PUBLISH_TIMEOUT` seconds at most.

        :param items: a generator, or a function that returns one. It waits while the broker does not answer.
        :param key: names the run; the default is a key that nobody can guess. While a run with this key is
            active on any worker, no second one starts: then `Run.started` is false and `items` is closed
            unused.
        :raises InvalidEvent: for a key that does not fit into a channel's name.
        :raises BrokerUnavailable: when the broker does not answer; the generator has not started.
        :raises Refused: 503, when this worker has as many runs as it may have.
        """
        app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
        runs = self._endpoint.services.streaming.runs
        return runs.start(items, secrets.token_urlsafe(16) if key is None else key, app.app_context)

    def stop(self, key: str) -> None:
        """Stops the run with this key, on whatever worker it runs. Does nothing when there is none.

        The generator is closed at its next item. The clients get `run.end` with the status `stopped`.

        :raises InvalidEvent: for a key that no run can have.
        :raises BrokerUnavailable: the run is stopped or goes on.
        """
        run_channel(key)  # refuses a key that no run can have
        self.announcer.command(STOP, key=key)

    # -- open streams ------------------------------------------------------------------------------------

    def disconnect(
        self,
        *,
        user_id: object = None,
        connection: str | None = None,
        channel: str | None = None,
        reconnect: bool = True,
    ) -> None:
        """Closes the streams, on all workers, that match all arguments given. Blocks for one publish.

        `MessageAnnouncer.disconnect` explains the arguments and errors.
        """
        self.announcer.disconnect(
            user_id=user_id, connection=connection, channel=channel, reconnect=reconnect
        )

    def revoke(self, user_id: object, channel: str | None = None) -> None:
        """Takes a channel from a user's open streams on all workers; without `channel`, closes them all.
        Blocks for one publish.

        `MessageAnnouncer.revoke` explains what the clients get.
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
        """Adds channels to an open stream, on whatever worker it is. Blocks for one publish.

        `MessageAnnouncer.join` explains the arguments and errors.
        """
        self.announcer.join(connection, channel, since=since, last=last)

    def leave(self, connection: str, channel: str | Iterable[str]) -> None:
        """Takes channels from an open stream, on whatever worker it is. Blocks for one publish.

        `MessageAnnouncer.leave` explains the errors.
        """
        self.announcer.leave(connection, channel)

    def connections(self, channel: str | None = None, user_id: object = None) -> list[dict[str, Any]]:
        """Returns the open streams of all workers, in no order: all, or only those with the channel, or of
        the user.

        Each has the keys `connection`, `user_id`, `channels`, `address`, `user_agent`, `since` (Unix time in
        seconds), `events` and `bytes` (sent to it so far), `buffered` (bytes that wait for the client) and
        `worker`. Blocks until all workers have answered, at most two seconds: so long only while a killed
        worker still counts as alive.

        :raises BrokerUnavailable: when the broker does not answer.
        """
        queries = self._endpoint.services.streaming.worker_queries
        return queries.connections(channel, None if user_id is None else str(user_id))

    def presence(self, channel: str, users: int = 1000) -> dict[str, Any]:
        """Returns who is in a channel, over all workers: `channel`, `count` (of users), `users` (sorted ids).

        The channel must be one of `SSE_PUSH_PRESENCE_CHANNELS`. Blocks for two calls to the broker.

        :param users: the most user ids to name. `count` is exact, whatever this number is.
        :raises BrokerUnavailable: when the broker does not answer.
        """
        table = presence.table(checked_channel(channel))
        counts = self._endpoint.services.publishing.broker.counts
        return {"channel": channel, "count": counts.size(table), "users": sorted(counts.names(table, users))}

    def stats(self) -> dict[str, Any]:
        """Returns figures of this worker process. Does not block.

        The keys are `streams`, `groups` (of streams with the same channels), `channels`, `connected` (whether
        the link to the broker works), `heard_ago` and `probed_ago` (seconds since the last message on the
        link and since the last probe came back; None before the first), `reconnects` and `history_calls`.
        """
        return self._endpoint.services.streaming.hub.stats()

    # -- pages and tickets -------------------------------------------------------------------------------

    def cursor(self, *channels: str) -> str:
        """Returns a cursor that lies before everything the view of this request has read.

        Put it into the page, and let the client connect with it as `lastEventId`: then the client gets every
        event that came between rendering and connecting. A worker with streams computes it without blocking;
        any other process makes one call to the broker. If the broker does not answer, the cursor is one that
        a stream answers with `sse.reset`.

        :param channels: the channels that the page will listen to.
        :raises InvalidEvent: for a name that is no channel's.
        """
        return page.cursor(self._endpoint.services, channels)

    def ticket(self, user: Any, channels: str | Iterable[str], seconds: float = tickets.LONGEST) -> str:
        """Returns a ticket that opens one stream: `new EventSource(url + "?ticket=" + ticket)`.

        Does not block. Anybody who has the ticket can use it, once. So hand it out in a page or an API that
        knows its user, and fetch a new one for each connection.

        :param user: a user object, a user id, or None for nobody.
        :param channels: the channels it opens: all of them, if the URL names none. The user must be allowed
            to listen to them now.
        :param seconds: how long it is valid; at most 60.
        :raises Refused: 401 or 403, when the user may not listen to one of the channels. Raised in a view, it
            becomes the response.
        """
        return self._endpoint.policy.ticket(user, channels, seconds)
