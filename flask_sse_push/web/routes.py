"""The routes of the blueprint, and the registration of the blueprint on an app."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

from flask import Blueprint, Flask, Request, Response, abort, current_app, g, jsonify, request
from flask.blueprints import BlueprintSetupState

from ..auth import flask_login
from ..auth.hooks import Hooks
from ..errors import Refused
from . import api, operations, page
from .endpoints import Endpoints
from .parameters import take_body
from .query import hide_ticket
from .services import Services
from .stream import StreamEndpoint

#: Key in `app.extensions`. The value is the `Endpoints` of the app.
EXTENSION = "sse_push"


class Routes(Blueprint):
    """The part of `SSEBlueprint` that defines the routes. Each app has its own streams."""

    def __init__(self, name: str, import_name: str, **options: Any) -> None:
        options.setdefault("static_folder", str(Path(__file__).parents[1] / "static"))
        options.setdefault("static_url_path", "/client")
        options.setdefault("cli_group", name)
        super().__init__(name, import_name, **options)
        self._hooks = Hooks()
        self._report_limit = operations.RateLimit()
        self.add_url_rule("", "stream", self._stream, methods=["GET", "POST"])
        self.add_url_rule("/", "stream_slash", self._stream, methods=["GET", "POST"])
        self.add_url_rule("/<connection>/channels", "channels", self._change_channels, methods=["POST"])
        self.add_url_rule("/publish", "publish", self._publish, methods=["POST"])
        self.add_url_rule("/stats", "stats", self._stats, methods=["GET"])
        self.add_url_rule("/metrics", "metrics", self._metrics, methods=["GET"])
        self.add_url_rule("/health", "health", self._health, methods=["GET"])
        self.add_url_rule("/doctor", "doctor", self._doctor, methods=["GET"])
        self.add_url_rule("/admin", "admin", self._admin, methods=["GET"])
        self.add_url_rule("/admin/", "admin_slash", self._admin_slash, methods=["GET"])
        self.add_url_rule("/admin/<path:view>", "admin_view", self._admin_view, methods=["GET", "POST"])
        self.add_url_rule("/report", "report", self._take_report, methods=["POST"])
        self.app_url_value_preprocessor(_note_start)
        self.url_value_preprocessor(self._take_request)
        self.app_errorhandler(Refused)(self._refuse)
        self.record(self._add_name)

    # -- registration on an app --------------------------------------------------------------------------

    def register(self, app: Flask, options: dict[str, Any]) -> None:  # type: ignore[override]
        """Registers the blueprint on an app. Opens no connection.

        Called by `app.register_blueprint`. Without a `url_prefix`, the prefix is `SSE_PUSH_URL_PREFIX`. The
        settings that are set by now are checked now. They are read when the blueprint is first used, so the
        app may set them later.

        :raises ConfigError: if a setting is invalid; the message names it.
        :raises ValueError: if the routes cannot work under this `url_prefix` or on this app, or if the app
            has this blueprint already.
        """
        _check_is_new(self, app, options)
        endpoints: Endpoints = app.extensions.get(EXTENSION, Endpoints(app))
        prefix = options.get("url_prefix", self.url_prefix) or endpoints.default_prefix()
        options = {**options, "url_prefix": _checked_prefix(self.name, app, prefix)}
        endpoints.check_settings()
        app.extensions[EXTENSION] = endpoints
        if endpoints.add(self, self._hooks):
            flask_login.end_streams(
                app,
                lambda user: endpoints[self].policy.user_id(user),
                lambda **whose: endpoints[self].services.log_out(**whose),
            )
        super().register(app, options)

    def _add_name(self, state: BlueprintSetupState) -> None:
        """Tells the app's endpoints under which name the blueprint was registered."""
        endpoints: Endpoints = state.app.extensions[EXTENSION]
        endpoints.add_name(self, f"{state.name_prefix}.{state.name}".lstrip("."))

    @property
    def services(self) -> Services:
        """The `Services` of this blueprint in the current app.

        :raises RuntimeError: if there is no app context, or if the blueprint is not registered on the app.
        """
        return self._endpoint.services

    @property
    def _endpoint(self) -> StreamEndpoint:
        try:  # reading an attribute of the proxy `current_app` would take ten times as long
            app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
            return app.extensions[EXTENSION][self]  # type: ignore[no-any-return]
        except (RuntimeError, KeyError):
            raise self._no_endpoint() from None

    def _no_endpoint(self) -> RuntimeError:
        """Returns the error for a call without an app context, or with an app that lacks this blueprint."""
        if not current_app:
            return RuntimeError(
                f"{self.name}: no app context here; use `with app.app_context():`, or in a process without "
                "the app MessageAnnouncer.from_url(...)"
            )
        return RuntimeError(
            f"{self.name}: not registered on {current_app.name!r}; "
            f"call app.register_blueprint({self.name}, url_prefix='/stream')"
        )

    def _take_request(self, endpoint: str | None, values: dict[str, Any] | None) -> None:
        """Hides the ticket in the URL, and reads the body of a `POST` request for a stream.

        Flask calls this method before the app's hooks. The first request reads the settings, because CORS
        headers must also be on answers that Flask sends without calling a view.

        :raises Refused: 400, if the query is not UTF-8. If the body is not valid, the view refuses it.
        """
        current: Request = request._get_current_object()  # type: ignore[attr-defined]
        hide_ticket(current)
        app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
        own: StreamEndpoint = app.extensions[EXTENSION][self]
        if (
            current.method == "POST"
            and endpoint
            and endpoint.rpartition(".")[2] in ("stream", "stream_slash")
        ):
            take_body(current, own.services.settings.max_channels)

    # -- view functions ----------------------------------------------------------------------------------

    # `of_prefix` has the variables of a url_prefix such as /<lang>/stream. Hooks find them in
    # `request.view_args`.

    def send_static_file(self, filename: str, **of_prefix: object) -> Response:
        return super().send_static_file(filename)

    def _stream(self, **of_prefix: object) -> Response:
        return self._endpoint.open(request._get_current_object())  # type: ignore[attr-defined]

    def _change_channels(self, connection: str, **of_prefix: object) -> tuple[Response, int]:
        endpoint = self._endpoint
        with endpoint.needs_broker():
            changes = api.change_channels(request, connection, endpoint.policy, endpoint.services)
        return jsonify(changes), 202

    def _publish(self, **of_prefix: object) -> Response:
        may_publish, endpoint = self._hooks.authorize_publish or abort(404), self._endpoint
        with endpoint.needs_broker():
            return jsonify(api.publish(request, endpoint.policy, may_publish, endpoint.services))

    def _stats(self, **of_prefix: object) -> Response:
        endpoint = self._admin_endpoint()
        with endpoint.needs_broker():
            response = jsonify(api.stats(endpoint.services))
        response.headers["Cache-Control"] = "no-store"
        return response

    def _metrics(self, **of_prefix: object) -> Response:
        return operations.metrics(self._admin_endpoint().services, request)

    def _health(self, **of_prefix: object) -> Response:
        return operations.check_health(self._admin_endpoint().services)

    def _doctor(self, **of_prefix: object) -> Response:
        from .self_report import self_report  # only `flask sse doctor` needs it

        response = jsonify(self_report(self._endpoint.policy, request))
        response.headers["Cache-Control"] = "no-store"
        return response

    def _admin(self, **of_prefix: object) -> Response:
        """Returns the admin page; for a browser whose user may not open the page, a page that says so.

        :raises Refused: 401 or 403, if the user is no admin and the client wants no page.
        """
        endpoint = self._endpoint
        try:
            endpoint.policy.check_admin(request)
        except Refused as refused:
            if request.accept_mimetypes.best_match(["application/json", "text/html"]) != "text/html":
                raise
            from .admin import views  # only the admin page needs it

            return views.refusal_page(endpoint.refuse(refused, request), refused.message)
        from .admin import views

        return views.page(str(self.static_url_path))

    def _admin_slash(self, **of_prefix: object) -> Response:
        """Sends the browser to the address without the slash: the addresses in the page are relative."""
        if self._hooks.authorize_admin is None:
            abort(404)
        return Response(status=308, headers={"Location": "../admin", "Cache-Control": "no-store"})

    def _admin_view(self, view: str, **of_prefix: object) -> Response:
        endpoint = self._endpoint
        identity = endpoint.policy.check_admin(request)
        from .admin import views

        with endpoint.needs_broker():
            current = request._get_current_object()  # type: ignore[attr-defined]
            return views.answer(endpoint, identity, current, view, self._examine)

    def _examine(self) -> list[dict[str, str]]:
        """Runs the checks of `flask sse doctor` for this process. The package `web` must not import `cli`."""
        raise NotImplementedError

    def _admin_endpoint(self) -> StreamEndpoint:
        """Returns the endpoint, if the function given to `@sse.authorize_admin` allows the user.

        :raises NotFound: if the app has registered no such function.
        :raises Refused: 401 or 403, if the function does not allow the user.
        """
        endpoint = self._endpoint
        endpoint.policy.check_admin(request)
        return endpoint

    def _take_report(self, **of_prefix: object) -> tuple[str, int]:
        operations.take_report(self.services, request, self._report_limit)
        return "", 204

    def _refuse(self, refused: Refused) -> Response:
        return self._endpoint.refuse(refused, request)


def _check_is_new(blueprint: Blueprint, app: Flask, options: dict[str, Any]) -> None:
    """Checks that a blueprint is not registered on the app yet under the name in the options."""
    name = f"{options.get('name_prefix', '')}.{options.get('name', blueprint.name)}".lstrip(".")
    if app.blueprints.get(name) is blueprint:
        raise ValueError(
            f"{name}: already registered on {app.name!r}. Register it once: with {name}.init_app(app), or "
            f"with app.register_blueprint({name}, ...). For a second address, give it a second name: "
            f"app.register_blueprint({name}, name='other', ...)"
        )


def _checked_prefix(name: str, app: Flask, prefix: str) -> str:
    """Returns a url_prefix without a slash at its end.

    :raises ValueError: if the routes cannot work under this prefix or on this app.
    """
    if app.url_map.host_matching:
        raise ValueError(
            f"{name}: {app.name!r} was made with host_matching=True, where routes of a blueprint match no "
            "host; use Flask(..., subdomain_matching=True), or serve the streams from an app of their own"
        )
    if not prefix.startswith("/"):
        raise ValueError(f"{name}: url_prefix is {prefix!r}, must begin with a slash: url_prefix='/{prefix}'")
    if re.search(r"[<:](connection|filename|view)>", prefix):
        raise ValueError(
            f"{name}: url_prefix is {prefix!r}, but the blueprint's own routes have variables named "
            "`connection`, `filename` and `view`; give the variable of the prefix another name"
        )
    return prefix.rstrip("/") or "/"


def _note_start(endpoint: str | None, values: dict[str, Any] | None) -> None:
    """Stores the time at which the request began in `flask.g`. Flask calls this function before the view."""
    setattr(g._get_current_object(), page.STARTED, time.monotonic())
