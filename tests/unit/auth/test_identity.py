"""Identities: what `expires` may be."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from flask_sse_push import Identity


@pytest.mark.parametrize(
    "expires",
    [
        *(datetime.now(UTC), "soon", "1700000000", b"17", True, [], object(), 1j),
        *(
            float("nan"),
            float("-inf"),
            Decimal("nan"),
            10**400,
            -(10**400),
            pytest.param(10**5000, id="huge"),
        ),
    ],
)
def test_a_time_that_is_no_number_is_refused_with_a_hint(expires: Any) -> None:
    with pytest.raises(
        ValueError, match=r"must be a Unix time in seconds: of a datetime, take its timestamp"
    ):
        Identity("ada", expires=expires)


@pytest.mark.parametrize("expires", [1_700_000_000, 1.7e9, 0, -5, 1e308, Decimal(17), Fraction(17, 2)])
def test_a_number_is_a_time(expires: Any) -> None:
    found = Identity("ada", expires=expires).expires
    assert found == expires
    assert type(found) is float


@pytest.mark.parametrize("expires", [None, float("inf"), Decimal("inf"), Decimal("1e999")])
def test_infinity_is_no_end(expires: Any) -> None:
    assert Identity("ada", expires=expires).expires is None
