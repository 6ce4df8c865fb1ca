"""Makes the address of a stream for a page, with the channels and the page's cursor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from flask import current_app, has_request_context, request, url_for
from werkzeug.datastructures import MultiDict

from ..errors import Refused
from ..protocol.channel import checked_channels
from . import page, query
from .services import Services

#: Options that become parameters of the address. `lastEventId` would only be a second name of a cursor.
PARAMETERS = ("batch", "events", "last", "last_event_id", "poll", "tagged", "ticket")


def stream_url(
    services: Services,
    names: Sequence[str],
    channels: Sequence[str | Iterable[str]],
    options: Mapping[str, Any],
) -> str:
    """Returns the address of a stream; see `SSEBlueprint.url`.

    :param names: the full names under which the app has registered the blueprint.
    """
    endpoint = f"{_name_here(names)}.stream"
    of_prefix = {name for rule in current_app.url_map.iter_rules(endpoint) for name in rule.arguments}
    given = {key: _as_text(options[key]) for key in PARAMETERS if options.get(key) is not None}
    more = {key: value for key, value in options.items() if key not in PARAMETERS}
    for key in more:
        if key not in of_prefix and not key.startswith("_"):  # `url_for` reads options such as `_external`
            known = ", ".join((*PARAMETERS, *sorted(of_prefix)))
            raise TypeError(f"sse.url has no option {key!r}; its options are {known}")
    fields = [f"channels[{at}]" for at in range(len(channels))]
    given_names = (checked_channels(each, field=field) for field, each in zip(fields, channels, strict=True))
    checked = tuple(dict.fromkeys(chain.from_iterable(given_names)))
    if checked:
        given["channels"] = ",".join(checked)
    if "last" not in given and "last_event_id" not in given:
        given["last_event_id"] = page.cursor(services, checked)
    _check(given, services.settings.max_channels)
    here = (request.view_args or {}) if has_request_context() else {}
    variables = {key: here[key] for key in of_prefix if key in here}
    return url_for(endpoint, **{**variables, **more, **given})


def _name_here(names: Sequence[str]) -> str:
    """Returns the name of the blueprint that lies nearest to the view of the current request.

    An app may register the blueprint several times, for example inside the blueprints `shop` and `blog`. A
    view of `shop` then gets the name `shop.sse`.
    """
    around = [*request.blueprints, ""] if has_request_context() else [""]
    return next((name for parent in around for name in names if name.rpartition(".")[0] == parent), names[0])


def _as_text(value: object) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def _check(parameters: Mapping[str, str], max_channels: int) -> None:
    """Checks the parameters as the server will check them when the page opens the stream.

    :raises ValueError: if the server would refuse the stream.
    """
    try:
        query.read(MultiDict(parameters), max_channels)
    except Refused as refused:
        raise ValueError(f"sse.url: {refused.message}") from None
