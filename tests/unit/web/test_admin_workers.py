"""How many workers are idle, as the admin page counts them."""

from __future__ import annotations

from typing import Any

import pytest

from flask_sse_push.web.admin.workers import idle_workers


def answers(host: str, server: int, count: int, of: Any) -> list[dict[str, Any]]:
    return [{"host": host, "server": server, "server_workers": of}] * count


@pytest.mark.parametrize(
    ("found", "missing", "idle"),
    [
        ([], 0, 0),
        (answers("a", 10, 1, 4), 0, 3),
        (answers("a", 10, 1, 4), 2, 1),
        (answers("a", 10, 2, 4) + answers("b", 10, 1, 4) + answers("b", 11, 1, 2), 0, 2 + 3 + 1),
        (answers("a", 10, 5, 4), 0, 0),  # the old workers of a reload are still there
        (answers("a", 10, 5, 4) + answers("b", 10, 1, 2), 0, 1),
        ([*answers("a", 10, 1, "x"), {}], 0, 0),  # no worker of this version has written it
    ],
)
def test_the_workers_that_do_not_answer_are_idle_or_missing(
    found: list[dict[str, Any]], missing: int, idle: int
) -> None:
    assert idle_workers(found, missing) == idle
