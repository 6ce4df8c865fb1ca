"""The stream endpoints of one app. Reads the app's settings when the app first uses one of its blueprints."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from flask import Blueprint, Flask, Response, request

from ..auth import limits
from ..auth.hooks import Hooks
from ..config import Settings
from ..errors import ConfigError
from ..monitoring import log
from . import cors, late_settings
from .services import Services
from .stream import StreamEndpoint


class Endpoints(dict[Blueprint, StreamEndpoint]):
    """The stream endpoint of each blueprint that is registered on an app.

    `endpoints[blueprint]` makes the endpoint on first use, with the settings that the app has then. So an app
    may set its configuration after it has registered the blueprint. Opens no connection.
    """

    def __init__(self, app: Flask) -> None:
        super().__init__()
        self._app = app
        self._hooks: dict[Blueprint, Hooks] = {}
        self._names: dict[Blueprint, list[str]] = {}
        self._default_prefix: str | None = None  # None unless a blueprint lies under SSE_PUSH_URL_PREFIX

    def add(self, blueprint: Blueprint, hooks: Hooks) -> bool:
        """Notes that a blueprint is registered. Returns whether this is its first registration on the app."""
        is_new = blueprint not in self._hooks
        self._hooks[blueprint] = hooks
        return is_new

    def add_name(self, blueprint: Blueprint, name: str) -> None:
        """Notes the full name of a blueprint in this app. A blueprint may have several names."""
        self._names.setdefault(blueprint, []).append(name)

    def names(self, blueprint: Blueprint) -> list[str]:
        """Returns the full names of a blueprint in this app, in the order of its registrations."""
        return self._names[blueprint]

    def default_prefix(self) -> str:
        """Returns the prefix of a blueprint that is registered without one: `SSE_PUSH_URL_PREFIX`."""
        self._default_prefix = Settings.load(self._app.config).url_prefix
        return self._default_prefix

    def check_settings(self) -> Settings:
        """Returns the settings that the app has now.

        :raises ConfigError: if a setting is invalid, needs an extra that is not installed, or comes too late.
        """
        settings = Settings.load(self._app.config)
        if self._default_prefix not in (None, settings.url_prefix):
            expected = (
                f"set before the blueprint is registered, and its routes are under {self._default_prefix}"
            )
            raise ConfigError(Settings.key("url_prefix"), settings.url_prefix, expected)
        limits.check(settings)
        log.set_up(settings)
        return settings

    def read_settings(self) -> Settings:
        """Returns the settings that the app has now. From now on, a change of the settings logs a warning.

        :raises ConfigError: if a setting is invalid.
        """
        settings = self.check_settings()
        late_settings.watch(self._app, settings)
        return settings

    def all(self) -> list[StreamEndpoint]:
        """Returns the endpoints of all blueprints."""
        return [self[blueprint] for blueprint in self._hooks]

    def __iter__(self) -> Iterator[Blueprint]:
        """Yields all registered blueprints, also those whose endpoint is not made yet."""
        return iter(self._hooks)

    def __missing__(self, blueprint: Blueprint) -> StreamEndpoint:
        """Makes the endpoint of a blueprint. Two threads that do so at once get the same endpoint.

        :raises KeyError: if the blueprint is not registered on the app.
        :raises ConfigError: if a setting is invalid.
        """
        hooks, settings = self._hooks[blueprint], self.read_settings()
        made = StreamEndpoint(self._app, settings, hooks)
        endpoint = self.setdefault(blueprint, made)
        # Only apps that allow origins need the hook, which runs after every request.
        if endpoint is made and settings.cors_origins:
            for name in self._names[blueprint]:
                hook = partial(_add_cors_headers, name, endpoint.services)
                self._app.after_request_funcs.setdefault(None, []).append(hook)
        return endpoint


def _add_cors_headers(name: str, services: Services, response: Response) -> Response:
    """Adds the CORS headers to a response of the blueprint. Called after each request of the app.

    :param name: the full name of the blueprint in this app.
    """
    allowed = services.settings.cors_origins
    # No page of another origin may read what an admin sees.
    is_admins = (request.endpoint or "").rpartition(".")[2].startswith("admin")
    if allowed and request.blueprint == name and not is_admins:
        origin, preflight = request.headers.get("Origin"), request.method == "OPTIONS"
        response.headers.update(cors.headers(origin, allowed, preflight=preflight))
        response.vary.add("Origin")
    return response
