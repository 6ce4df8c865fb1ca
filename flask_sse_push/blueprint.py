"""The Flask blueprint: the routes, and the helpers an app calls."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from flask import Blueprint, Flask, Response, abort, current_app, jsonify, request
from flask.blueprints import BlueprintSetupState

from .announcer import DEFAULT_CHANNEL, Batch, MessageAnnouncer
from .auth import flask_login, limits, tickets
from .auth.policy import Hooks
from .cli import add_commands
from .config import Settings
from .errors import Refused
from .monitoring import log, signals
from .presence import presence
from .protocol.channel import checked_channel
from .runs import STOP, Items, Run, checked_key, run_body
from .web import admin, api, cors, page
from .web.query import hide_ticket
from .web.response import HEADERS, StreamResponse
from .web.services import Services
from .web.stream import StreamEndpoint

F = TypeVar("F")

#: Where `app.extensions` keeps the doors, by their blueprints.
EXTENSION = "sse_push"


class SSEBlueprint(Blueprint):
    """Pushes events to browsers. Registered on an app, it serves `GET <prefix>` and publishes.

    One blueprint may be registered on several apps, and several on one app: each pair has its own state.
    All methods but the decorators, `register` and `init_app` need an app context: they raise RuntimeError
    without one.

    :param name: the blueprint's name: of its endpoints (`sse.stream`), its commands (`flask sse …`) and what
        templates see (`sse.cursor()`).
    :param options: those of Flask's Blueprint.
    """

    def __init__(self, name: str = "sse", import_name: str = __name__, **options: Any) -> None:
        options.setdefault("static_folder", str(Path(__file__).parent / "static"))
        options.setdefault("static_url_path", "/client")
        options.setdefault("cli_group", name)
        super().__init__(name, import_name, **options)
        self._hooks = Hooks()
        self.add_url_rule("", "stream", self._stream, methods=["GET"])
        self.add_url_rule("/", "stream_slash", self._stream, methods=["GET"])
        self.add_url_rule("/<connection>/channels", "channels", self._change_channels, methods=["POST"])
        self.add_url_rule("/publish", "publish", self._publish, methods=["POST"])
        self.add_url_rule("/stats", "stats", self._stats, methods=["GET"])
        self.add_url_rule("/metrics", "metrics", self._metrics, methods=["GET"])
        self.add_url_rule("/health", "health", self._health, methods=["GET"])
        self.add_url_rule("/report", "report", self._take_report, methods=["POST"])
        self._reports = admin.Bucket()
        self.app_url_value_preprocessor(page.note_begin)
        self.record_once(self._add_to_templates)
        self.record(self._watch_origins)
        self.url_value_preprocessor(hide_ticket)
        self.app_errorhandler(Refused)(self._refuse)
        add_commands(self.cli, self)  # type: ignore[arg-type]

    # -- registration ------------------------------------------------------------------------------------

    def register(self, app: Flask, options: dict[str, Any]) -> None:  # type: ignore[override]
        """Flask's hook for `app.register_blueprint`. Reads the settings; opens nothing.

        :raises ConfigError: naming the wrong key.
        """
        endpoints = app.extensions.setdefault(EXTENSION, {})
        if self not in endpoints:
            settings = Settings.load(app.config)
            limits.check(settings)
            log.set_up(settings)
            endpoints[self] = StreamEndpoint(app, settings, self._hooks)
            flask_login.end_streams_at_logout(app, endpoints[self].services.log_out)
        super().register(app, options)

    def init_app(self, app: Flask) -> None:
        """Registers the blueprint under `SSE_PUSH_URL_PREFIX` (`/stream`). Opens nothing.

        :raises ConfigError: naming the wrong key.
        """
        app.register_blueprint(self, url_prefix=Settings.load(app.config).url_prefix)

    def _watch_origins(self, state: BlueprintSetupState) -> None:
        """Lets pages of the listed origins read any answer under the prefix, the client's module too."""
        if state.app.extensions[EXTENSION][
            self
        ].services.settings.cors_origins:  # else no request pays for it
            name = f"{state.name_prefix}.{state.name}".lstrip(".")
            state.app.after_request(partial(self._allow_origin, name))

    def _add_to_templates(self, state: BlueprintSetupState) -> None:
        state.app.jinja_env.globals.setdefault(self.name, page.InTemplates(self.cursor))

    @property
    def services(self) -> Services:
        """What the current app runs this blueprint on.

        :raises RuntimeError: without an app context, or when the blueprint is not registered.
        """
        return self._endpoint.services

    @property
    def _endpoint(self) -> StreamEndpoint:
        try:
            return current_app.extensions[EXTENSION][self]  # type: ignore[no-any-return]
        except RuntimeError:
            raise RuntimeError(
                f"{self.name}: no app context here; use `with app.app_context():`, or in a process without "
                "the app MessageAnnouncer.from_url(...)"
            ) from None
        except KeyError:
            raise RuntimeError(
                f"{self.name}: not registered on {current_app.name!r}; "
                f"call app.register_blueprint({self.name}, url_prefix='/stream')"
            ) from None

    # -- decorators --------------------------------------------------------------------------------------

    def authorize(self, allowed: F) -> F:
        """Registers `allowed(user, channel) -> bool`, asked for every channel that is not public.

        It is called in the request that connects, and again outside any request while the stream is open, in
        an app context: go by the `user` that is given, None for nobody. It may block. What it raises fails
        the request; raised three times for an open stream, it ends that, and the client comes in again.
        One function for a blueprint: the last one counts. Without one such channels are closed.
        """
        self._hooks.authorize = allowed  # type: ignore[assignment]
        return allowed

    def identify(self, who: F) -> F:
        """Registers `who(request) -> user | Identity | None`; the first that knows somebody counts.

        A user is any object; its id is that of flask-login's `get_id()`, else its attribute `id`, else the
        object itself as text. Without a function, flask-login's `current_user` is taken.
        """
        self._hooks.identify.append(who)  # type: ignore[arg-type]
        return who

    def load_user(self, load: F) -> F:
        """Registers `load(user_id) -> user | None`, which tells who the user of a ticket or of an open stream
        is now; the id is text. Called outside any request too, in an app context; it may block.

        Without one, flask-login's `user_loader` is taken, for its own users and for tickets.
        """
        self._hooks.load_user = load  # type: ignore[assignment]
        return load

    # -- rights ----------------------------------------------------------------------------------------

    def revoke(self, user_id: object, channel: str | None = None) -> None:
        """Takes a channel from a user's open streams, or ends them all; see `MessageAnnouncer.revoke`.

        :raises InvalidEvent: for a name that is no channel's.
        :raises BrokerUnavailable: it happens once or not at all.
        """
        self.announcer.revoke(user_id, channel)

    # -- tickets -----------------------------------------------------------------------------------------

    def ticket(self, user: Any, channels: str | Iterable[str], seconds: float = tickets.LONGEST) -> str:
        """A ticket that opens one stream: `new EventSource(url + "?ticket=" + ticket)`.

        Needs an app context. Does not block. Anybody who has it may use it, once, so hand it out by a page
        or an API that knows its user, and fetch a new one for each connection.

        :param user: whom it is for; a user object, an id, or None.
        :param channels: what it opens; all of them, when the URL names none. They must be allowed now.
        :param seconds: how long it is good for, at most 60.
        :raises Refused: 401 or 403, when `user` may not listen to one of them; as the answer of a view it
            becomes one.
        """
        return self._endpoint.policy.ticket(user, channels, seconds)

    def authorize_publish(self, allowed: F) -> F:
        """Registers `allowed(user, channel) -> bool` and so opens `POST <prefix>/publish` to whom it lets."""
        self._hooks.authorize_publish = allowed  # type: ignore[assignment]
        return allowed

    def authorize_admin(self, allowed: F) -> F:
        """Registers `allowed(user) -> bool` and so opens `GET <prefix>/stats`, `/metrics` and `/health` to
        whom it lets.

        It is called within the request, so it may look at that too, at a scraper's token for one.
        """
        self._hooks.authorize_admin = allowed  # type: ignore[assignment]
        return allowed

    # -- publishing --------------------------------------------------------------------------------------

    @property
    def announcer(self) -> MessageAnnouncer:
        """The announcer of the current app."""
        return self.services.publishing.announcer

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

        The arguments are those of `MessageAnnouncer.publish`; JSON is written by the app's provider. Sends
        the signal `event_published`. Blocks until the event is stored, for `SSE_PUSH_PUBLISH_TIMEOUT` seconds
        at most.

        :raises InvalidEvent: naming the wrong field.
        :raises MessageTooLarge: with both sizes.
        :raises BrokerUnavailable: it is stored zero or one times; with `id` it is safe to publish again.
        """
        cursor = self.announcer.publish(
            data, type, channel=channel, id=id, retry=retry, exclude=exclude, ttl=ttl, compress=compress
        )
        signals.event_published.send(
            current_app._get_current_object(),  # type: ignore[attr-defined]
            channel=channel,
            type=type,
            cursor=cursor,
        )
        return cursor

    def publish_many(self, events: Iterable[Mapping[str, Any]], *, id: str | None = None) -> list[str]:
        """Sends several events, all or none; returns their cursors. See `MessageAnnouncer.publish_many`."""
        return self.announcer.publish_many(events, id=id)

    def batch(self, *, id: str | None = None) -> AbstractContextManager[Batch]:
        """Gathers events in a `with` block and sends them together; see `MessageAnnouncer.batch`."""
        return self.announcer.batch(id=id)

    def notify(
        self, type: str, data: Any, *, level: str = "info", channel: str | Iterable[str] = DEFAULT_CHANNEL
    ) -> str:
        """Sends the standard message; returns its cursor. See `MessageAnnouncer.notify`."""
        return self.announcer.notify(type, data, level=level, channel=channel)

    def send_to_user(
        self, user_id: object, data: Any, type: str | None = None, *, compress: str | None = None
    ) -> str:
        """Sends to the channel `user:<user_id>`; returns the event's cursor. See
        `MessageAnnouncer.send_to_user`."""
        return self.announcer.send_to_user(user_id, data, type, compress=compress)

    def broadcast(self, data: Any, type: str | None = None, *, compress: str | None = None) -> str:
        """Sends to every open stream; returns the event's cursor. See `MessageAnnouncer.broadcast`."""
        return self.announcer.broadcast(data, type, compress=compress)

    # -- runs --------------------------------------------------------------------------------------------

    def stream(self, items: Items) -> Response:
        """A response that streams what a generator yields, for the one who asked: nothing is stored.

        Strings go out as `run.text` {"text"}, pairs that begin with a string as events of that type, all
        else as `run.item`; before them comes `run.begin`, after them `run.end` {"run", "status", "error"},
        with the status `done`, or `failed` when the generator raised. It runs outside the request, and is
        closed when the client leaves.

        :param items: a generator, or a function that returns one.
        """
        dumps = current_app.json.dumps
        return StreamResponse(run_body(items, dumps), headers=HEADERS)

    def start(self, items: Items, key: str | None = None) -> Run:
        """Runs a generator in the background; its events go to the channel `run:<key>` and are kept as any.

        Who listens to the channel asks `@sse.authorize`, as for any other; or `SSE_PUSH_PUBLIC_CHANNELS` has
        `run:*`, when nobody can guess the keys. The events are those of `stream`; text that comes fast goes
        out together. The generator runs in this worker in an app context of its own, without the request.

        Blocks until `run.begin` is stored, at most a few times `SSE_PUSH_PUBLISH_TIMEOUT`.

        :param items: a generator, or a function that returns one. It waits while the broker does not take
            what it yields.
        :param key: names the run; one that nobody can guess by default. While a run with this key is under
            way on any worker, no other begins: then `Run.started` is false and `items` is closed unused.
        :raises InvalidEvent: for a key that does not fit into a channel's name.
        :raises BrokerUnavailable: when the broker does not answer; the generator has not begun.
        :raises Refused: 503, when this worker runs too many.
        """
        app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
        return self.services.streaming.runs.start(
            items, secrets.token_urlsafe(16) if key is None else key, app.app_context
        )

    def stop(self, key: str) -> None:
        """Ends the run with this key, on whatever worker it is; its readers get `run.end` with the status
        `stopped`. Nothing happens when there is none. The generator is closed at its next item.

        :raises InvalidEvent: for a key that no run can have.
        :raises BrokerUnavailable: it happens once or not at all.
        """
        checked_key(key)
        self.announcer.command(STOP, key=key)

    # -- streams -----------------------------------------------------------------------------------------

    def disconnect(
        self,
        *,
        user_id: object = None,
        connection: str | None = None,
        channel: str | None = None,
        reconnect: bool = True,
    ) -> None:
        """Ends streams on all workers; see `MessageAnnouncer.disconnect`."""
        self.announcer.disconnect(
            user_id=user_id, connection=connection, channel=channel, reconnect=reconnect
        )

    def join(
        self,
        connection: str,
        channel: str | Iterable[str],
        *,
        since: str | None = None,
        last: int | None = None,
    ) -> None:
        """Has an open stream join channels; see `MessageAnnouncer.join`."""
        self.announcer.join(connection, channel, since=since, last=last)

    def leave(self, connection: str, channel: str | Iterable[str]) -> None:
        """Has an open stream leave channels, wherever it is; see `MessageAnnouncer.leave`."""
        self.announcer.leave(connection, channel)

    def connections(self, channel: str | None = None, user_id: object = None) -> list[dict[str, Any]]:
        """All open streams of all workers, or those with the channel, or of the user; in no order.

        Each has `connection`, `user_id`, `channels`, `address`, `user_agent`, `since` (Unix time in seconds),
        `events` and `bytes` sent to it, `buffered` (bytes that wait for it), `worker`. Blocks until all
        workers have answered, for two seconds at most: while a worker that was killed still counts as alive.

        :raises BrokerUnavailable: when the broker does not answer.
        """
        return self.services.streaming.worker_queries.connections(
            channel, None if user_id is None else str(user_id)
        )

    def presence(self, channel: str, users: int = 1000) -> dict[str, Any]:
        """Who is in a channel of `SSE_PUSH_PRESENCE_CHANNELS`, over all workers: `channel`, `count`, `users`.

        :param users: how many user ids to name at most; the count costs the same for any number.
        :raises BrokerUnavailable: when the broker does not answer.
        """
        counts, name = self.services.publishing.broker.counts, presence.table(checked_channel(channel))
        return {"channel": channel, "count": counts.size(name), "users": sorted(counts.names(name, users))}

    def cursor(self, *channels: str) -> str:
        """The cursor from which a page misses nothing that came after its request began.

        Put into the page and given to the client as `lastEventId`, it closes the gap between rendering and
        connecting. It is this worker's own position, at no cost, once the worker has streams; else one call
        to the broker. Then it goes back by the age of the request, so that it lies before all that the view
        has read. When the broker does not answer, the cursor is one that is answered with `sse.reset`.

        :param channels: what the page will listen to.
        :raises InvalidEvent: for a name that is no channel's.
        """
        return page.cursor(self.services, channels)

    def stats(self) -> dict[str, Any]:
        """Figures of this worker process, from memory: does not block.

        `streams`, `groups` (of streams with the same channels), `channels`, `connected` (whether its link to
        the broker stands), `heard_ago` and `probed_ago` (seconds since anything was heard on it, and since a
        probe came back; None before the first), `reconnects`, `history_calls`.
        """
        return self.services.streaming.hub.stats()

    # -- the routes --------------------------------------------------------------------------------------

    def _stream(self) -> Response:
        return self._endpoint.open(request._get_current_object())  # type: ignore[attr-defined]

    def _change_channels(self, connection: str) -> tuple[Response, int]:
        endpoint = self._endpoint
        with endpoint.needs_broker():
            done = api.change_channels(request, connection, endpoint.policy, endpoint.services)
        return jsonify(done), 202

    def _publish(self) -> Response:
        may_publish, endpoint = self._hooks.authorize_publish or abort(404), self._endpoint
        with endpoint.needs_broker():
            return jsonify(api.publish(request, endpoint.policy, may_publish, endpoint.services))

    def _stats(self) -> Response:
        endpoint = self._door_for_admins()
        with endpoint.needs_broker():
            response = jsonify(api.stats(endpoint.services))
        response.headers["Cache-Control"] = "no-store"
        return response

    def _metrics(self) -> Response:
        return admin.metrics(self._door_for_admins().services, request)

    def _health(self) -> Response:
        return admin.check_health(self._door_for_admins().services)

    def _door_for_admins(self) -> StreamEndpoint:
        endpoint = self._endpoint
        endpoint.policy.check_admin(request)
        return endpoint

    def _take_report(self) -> tuple[str, int]:
        admin.take_report(self.services, request, self._reports)
        return "", 204

    def _refuse(self, refused: Refused) -> Response:
        return self._endpoint.refuse(refused, request)

    def _allow_origin(self, name: str, response: Response) -> Response:
        allowed = self._endpoint.services.settings.cors_origins
        if allowed and request.blueprint == name:
            preflight = request.method == "OPTIONS"
            origin = request.headers.get("Origin")
            response.headers.update(cors.headers(origin, allowed, preflight=preflight))
            response.vary.add("Origin")
        return response
