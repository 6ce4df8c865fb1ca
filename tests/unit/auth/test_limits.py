"""Which addresses count as one, and how long a name in a key may be."""

from __future__ import annotations

import importlib.util

import pytest

from flask_sse_push.auth.limits import MAX_NAME, UNKNOWN, _short, check, network
from flask_sse_push.config import Settings
from flask_sse_push.errors import ConfigError


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("::1", "::/64"),
        ("192.0.2.7:50123", "192.0.2.7"),
        (" 192.0.2.7 ", "192.0.2.7"),
        ("[2001:db8:1:2::1]:50123", "2001:db8:1:2::/64"),
        ("[2001:db8:1:2::1]", "2001:db8:1:2::/64"),
        ("[::ffff:192.0.2.7]:1", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", UNKNOWN),
        (None, UNKNOWN),
        ("unix:", UNKNOWN),
        ("somewhere", UNKNOWN),
        ("192.0.2.7:", UNKNOWN),
        ("192.0.2.7:port", UNKNOWN),
        ("192.0.2.777:1", UNKNOWN),
        ("[192.0.2.7", UNKNOWN),
        ("unix:[::1]:1", UNKNOWN),
    ],
)
def test_an_address_counts_without_its_port_and_with_its_network(address: str | None, counted: str) -> None:
    assert network(address) == counted


@pytest.mark.parametrize("name", ["", "ada", "a\nb", "\ud800", "ä" * 50, "x" * MAX_NAME, "x" * 100_000])
def test_any_name_makes_a_short_key(name: str) -> None:
    assert len(_short(name).encode()) <= MAX_NAME
    assert _short(name) == _short(name) != _short(name + "x")


def test_rates_without_the_library_are_an_error_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    check(Settings(rate_per_user="5/minute"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    check(Settings())
    with pytest.raises(ConfigError, match=r"SSE_PUSH_RATE_PER_USER .* flask-sse-push\[limits\]"):
        check(Settings(rate_per_user="5/minute"))
