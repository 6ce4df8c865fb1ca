"""How this worker answers the queries of admin pages, which any worker may send."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from ...presence.query import Answer
from . import runs, streams, workers

if TYPE_CHECKING:
    from ..services import Services

#: What answers each kind of query. Each function gets the parts of this process first.
_ANSWERS: Mapping[str, Callable[..., Any]] = {
    streams.LIST: streams.answer_list,
    streams.ONE: streams.answer_one,
    workers.QUERY: workers.answer,
    runs.QUERY: runs.answer,
}


def answer_of(what: str, services: Services) -> Answer | None:
    """Returns the function that answers a kind of query; None for an unknown kind."""
    answer = _ANSWERS.get(what)
    return None if answer is None else partial(answer, services)
