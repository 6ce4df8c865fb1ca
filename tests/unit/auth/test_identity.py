"""Identities: what `expires` may be."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from flask_sse_push import Identity


@pytest.mark.parametrize("expires", [datetime.now(UTC), "soon", "1700000000", Decimal(17), float("nan")])
def test_a_time_that_is_no_number_is_refused_with_a_hint(expires: Any) -> None:
    with pytest.raises(
        ValueError, match=r"must be a Unix time in seconds: of a datetime, take its timestamp"
    ):
        Identity("ada", expires=expires)


@pytest.mark.parametrize("expires", [None, 1_700_000_000, 1.7e9, float("inf")])
def test_a_number_or_nothing_is_a_time(expires: float | None) -> None:
    assert Identity("ada", expires=expires).expires == expires
