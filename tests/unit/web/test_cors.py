"""CORS: only exact origins may read, never the pages of everybody."""

from __future__ import annotations

import pytest

from flask_sse_push.config import Settings
from flask_sse_push.errors import ConfigError
from flask_sse_push.web.cors import headers, is_foreign

SHOP = "https://shop.example"


def test_a_listed_origin_may_read_with_credentials() -> None:
    assert headers(SHOP, (SHOP,)) == {
        "Access-Control-Allow-Origin": SHOP,
        "Access-Control-Allow-Credentials": "true",
        "Access-Control-Expose-Headers": "Retry-After",
    }


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "",
        "null",
        "*",
        "https://shop.example.evil.example",
        "https://evilshop.example",
        "https://shop.example:8443",
        "http://shop.example",
        "https://SHOP.example",
        "https://shop.example/",
    ],
)
def test_any_other_origin_gets_no_header(origin: str | None) -> None:
    assert headers(origin, (SHOP,)) == {}
    assert headers(origin, (SHOP,), preflight=True) == {}


def test_a_preflight_allows_what_the_fetch_transport_sends() -> None:
    answer = headers(SHOP, (SHOP,), preflight=True)
    assert {"Authorization", "Last-Event-ID"} <= set(answer["Access-Control-Allow-Headers"].split(", "))
    assert answer["Access-Control-Allow-Methods"] == "GET, POST"


def test_a_page_is_foreign_if_its_origin_is_neither_the_apps_nor_listed() -> None:
    own = "app.example:8000"
    assert not is_foreign(None, own, (SHOP,))
    assert not is_foreign(f"https://{own}", own, (SHOP,))
    assert not is_foreign(f"http://{own}", own, (SHOP,))
    assert not is_foreign("HTTP://APP.example:8000", "app.EXAMPLE:8000", ())
    assert is_foreign("http://[", own, (SHOP,))
    assert is_foreign("http://app.example", own, (SHOP,))
    assert not is_foreign(SHOP, own, (SHOP,))
    assert is_foreign("null", own, (SHOP,))
    assert is_foreign("https://evil.example", own, (SHOP,))


@pytest.mark.parametrize(
    "origin",
    [
        *("*", "null", "shop.example", "https://shop.example/", "https://*.example", "https://Shop.example"),
        *("https://shop.example:443", "http://[::1]:80"),
    ],
)
def test_a_setting_that_names_no_exact_origin_is_refused(origin: str) -> None:
    with pytest.raises(ConfigError, match="exact origins"):
        Settings.load({"SSE_PUSH_CORS_ORIGINS": [SHOP, origin]}, {})


def test_the_setting_takes_origins_of_all_kinds() -> None:
    origins = "https://shop.example, http://localhost:5173, http://[::1]:8080, capacitor://localhost"
    assert len(Settings.load({}, {"SSE_PUSH_CORS_ORIGINS": origins}).cors_origins) == 4
