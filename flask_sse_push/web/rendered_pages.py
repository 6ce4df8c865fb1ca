"""The methods of the blueprint for pages that views render: a cursor, and the address of a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from flask import current_app
from flask.blueprints import BlueprintSetupState

from . import page
from .address import stream_url
from .routes import EXTENSION, Routes


class InTemplates:
    """The object that templates use under the blueprint's name: `{{ sse.url("news") }}`."""

    def __init__(self, cursor: Callable[..., str], url: Callable[..., str]) -> None:
        self.cursor = cursor
        self.url = url


class RenderedPages(Routes):
    """The part of `SSEBlueprint` that views and templates use to render a page with a stream."""

    def __init__(self, name: str, import_name: str, **options: Any) -> None:
        super().__init__(name, import_name, **options)
        self.record(self._add_to_templates)

    def cursor(self, *channels: str) -> str:
        """Returns a cursor from before the current request began, for the page that the view renders.

        Put the cursor into the page, and let the client connect with `lastEventId` set to it. Then the client
        gets every event that is published after the request began. A worker with streams computes the cursor
        without blocking. Any other process makes one call to the broker. If the broker does not answer, the
        returned cursor makes the client get `sse.reset`.

        :param channels: the channels that the page will listen to.
        :raises InvalidEvent: if a channel's name is not valid.
        """
        return page.cursor(self._endpoint.services, channels)

    def url(self, *channels: str | Iterable[str], **options: Any) -> str:
        """Returns the address of a stream, with a cursor, for the page that the view renders.

        A client that connects to this address gets every event that is published after the request began, as
        with `cursor`. So an EventSource, which cannot set headers, misses nothing. When an EventSource
        reconnects, the server uses the header `Last-Event-ID`, and ignores the cursor in the address. Blocks
        as `cursor` does.

        `{{ sse.url("orders", "user:7") }}` does the same in a template. An app may register this blueprint
        inside another blueprint, such as `shop`. The views of `shop` then get the address inside `shop`.

        :param channels: the channels of the stream, as names or lists of names; without any, the channel
            `sse`.
        :param options: parameters of the stream (`batch`, `events`, `last`, `last_event_id`, `poll`,
            `tagged`, `ticket`), variables of the `url_prefix`, or options of Flask's `url_for` such as
            `_external`. With `last` or `last_event_id` the address has no other cursor. Variables that are
            not given have the values of the current request.
        :raises InvalidEvent: if a channel's name is not valid.
        :raises TypeError: if there is no such option.
        :raises ValueError: if the server would refuse a stream with these parameters.
        """
        services = self.services  # raises RuntimeError without an app context
        return stream_url(services, current_app.extensions[EXTENSION].names(self), channels, options)

    def _url_of(self, name: str, *channels: str | Iterable[str], **options: Any) -> str:
        return stream_url(self.services, [name], channels, options)

    def _add_to_templates(self, state: BlueprintSetupState) -> None:
        names = state.app.jinja_env.globals
        names.setdefault(self.name, InTemplates(self.cursor, self.url))
        if state.name != self.name:  # templates use a registration under another name by that name
            full_name = f"{state.name_prefix}.{state.name}".lstrip(".")
            names.setdefault(state.name, InTemplates(self.cursor, partial(self._url_of, full_name)))
