"""The methods of the blueprint for generators: for one response, or as runs in the background."""

from __future__ import annotations

import secrets
from dataclasses import replace

from flask import Flask, Response, current_app, request

from ..runs.manager import STOP
from ..runs.output import Items
from ..runs.response import EventFormat, run_body
from ..runs.run import Run, checked_run_id, run_channel
from .response import StreamResponse
from .routes import Routes
from .stream import HEADERS


class RunViews(Routes):
    """The part of `SSEBlueprint` that views use to send what a generator yields."""

    def stream(self, items: Items | None = None, format: str | None = None) -> Response:
        """Returns a response that streams the items of a generator to one client. Nothing is stored.

        Without `items`, opens the stream that the current request asks for, as `GET <prefix>` does. So a view
        of the app may decide first whether it returns `sse.stream()`.

        The first event is `run.begin`. Then each item becomes an event: a string becomes the event `run.text`
        with the data {"text"}; a pair (type, data), with a string as type, becomes an event of this type; any
        other item becomes the event `run.item`. Then comes `run.end` with the data {"run", "status",
        "error"}. Its status is `done`, or `failed` if the generator raised an exception. The last event is
        `sse.close`, so that `PushClient` does not connect again. The generator runs outside the request, and
        is closed when the client leaves.

        :param items: a generator, or a function that returns one.
        :param format: `ai-sdk`, `ag-ui` or `openai`, to send the items in the format of a front end; see
            `Run.response`. None means the events above.
        :raises ValueError: if there is no such format; the message names all formats.
        """
        if items is None:
            return self._stream()
        dumps = current_app.json.dumps
        if format is None:
            return StreamResponse(run_body(items, EventFormat(dumps)), HEADERS)
        from .run_response import respond_items  # only apps that use formats need it

        return respond_items(items, format, dumps)

    def start(
        self, items: Items, key: str | None = None, id: str | None = None, format: str | None = None
    ) -> Run:
        """Runs a generator in the background and publishes its items to the channel `run:<key>`.

        Returns a `Run` with the key, the channel, and a cursor from before the first event. The events are
        the same as those of the method `stream`, but the broker stores them like other events. Text items
        that follow each other quickly share one event. The generator runs in this worker, in an app context
        of its own, without the request.

        `@sse.authorize` decides who may listen to the channel, as for any other channel. If nobody can guess
        the keys, it is enough to put `run:*` into `SSE_PUSH_PUBLIC_CHANNELS`. Blocks until `run.begin` is
        stored, but at most a few times `SSE_PUSH_PUBLISH_TIMEOUT` seconds.

        :param items: a generator, or a function that returns one. It pauses while the broker does not answer.
        :param key: the key of the run; the default is a key that nobody can guess. If a run with this key is
            active on any worker, no second run starts: `Run.started` is false, and `items` is closed unused.
        :param id: the id of the run, at most 100 of `A-Z a-z 0-9 . _ : -`. Choose a new id for each run, such
            as the id under which your app stores the answer. The default is a random id. Front ends get it as
            the id of the message.
        :param format: the format of `Run.response()`. A wrong format is refused before anything starts.
        :raises ValueError: if there is no such format; the message names all formats.
        :raises InvalidEvent: if the key does not fit into a channel's name, or if the id is not valid.
        :raises BrokerUnavailable: if the broker does not answer; the generator has then not started.
        :raises Refused: 503, if this worker already has as many runs as it may have.
        """
        if format is not None:
            from ..runs.formats import writer_class  # only apps that use formats need it

            writer_class(format)  # raises ValueError if there is no such format
        app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
        runs = self._endpoint.services.streaming.runs
        key = secrets.token_urlsafe(16) if key is None else key
        id = secrets.token_urlsafe(9) if id is None else checked_run_id(id)
        run = runs.start(items, key, id, app.app_context)
        return replace(run, _format=format, _respond=self._respond_run)

    def _respond_run(self, run: Run, format: str) -> Response:
        from .run_response import respond_run

        return respond_run(self._endpoint, request, run, format)

    def resume(self, key: str, format: str) -> Response:
        """Returns a response that sends the run with this key, if it is under way on any worker.

        The client gets the run from its beginning, with the text so far in one piece, up to its end. Without
        such a run, the response is 204 without a body. The view decides who may read the run, as for
        `Run.response`. Blocks for one call to the broker.

        :param format: `ai-sdk`, `ag-ui` or `openai`.
        :raises ValueError: if there is no such format; the message names all formats.
        :raises Refused: 429 or 503, as for any stream; 503 also if the broker does not answer. Without a
            handler in the app, this is the response.
        """
        from .run_response import resume_run

        return resume_run(self._endpoint, request, key, format)

    def stop(self, key: str) -> None:
        """Stops the run with this key, on any worker. Does nothing if there is no such run.

        The generator is closed at its next item. The clients get `run.end` with the status `stopped`.

        :raises InvalidEvent: if no run can have this key.
        :raises BrokerUnavailable: if the broker does not answer in time; the run may then go on.
        """
        run_channel(key)  # raises InvalidEvent if no run can have this key
        self._endpoint.services.publishing.announcer.command(STOP, key=key)
