"""Checks the app's settings and configuration. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...config import Settings
from ...config.channel_policies import open_user_channel
from .finding import Finding, broken, ok, warning

#: Many proxies close a connection after this many seconds without data.
PROXY_TIMEOUT = 60.0


def examine_settings(settings: Settings, config: Mapping[str, Any]) -> Iterator[Finding]:
    """Yields findings about the settings, and about the configuration of the app."""
    yield _heartbeat(settings)
    yield _public(settings)
    yield _secret(config)
    if settings.cors_origins:
        yield _cookies(settings, config)


def _heartbeat(settings: Settings) -> Finding:
    if settings.heartbeat < PROXY_TIMEOUT:
        return ok("heartbeat", f"every {settings.heartbeat:g} seconds")
    return warning(
        "heartbeat",
        f"SSE_PUSH_HEARTBEAT is {settings.heartbeat:g} seconds",
        f"many proxies close a connection after {PROXY_TIMEOUT:g} seconds without data; also, workers notice "
        "only at the next heartbeat that a client has left",
        "set SSE_PUSH_HEARTBEAT to 15, below the read timeout of every proxy between browsers and the app",
    )


def _public(settings: Settings) -> Finding:
    found = open_user_channel(settings)
    if found is None:
        named = [rule.pattern for rule in settings.channels if rule.public]
        return ok("public channels", ", ".join([*named, *settings.public_channels]) or "none")
    return warning(
        "public channels",
        f"{found.opened_by} opens the channels of single users",
        f"anybody may listen to such a channel, for example {found.channel}",
        "list only the public channels, and decide about all other channels in @sse.authorize",
    )


def _secret(config: Mapping[str, Any]) -> Finding:
    if config.get("SECRET_KEY"):
        return ok("secret key", "is set")
    return warning(
        "secret key",
        "the app has no SECRET_KEY",
        "without SECRET_KEY there are no sessions and no tickets, and clients cannot change open streams",
        "set SECRET_KEY to the same secret for all workers; then the doctor can also ask the app at --url "
        "what serves it",
    )


def _cookies(settings: Settings, config: Mapping[str, Any]) -> Finding:
    origins = ", ".join(settings.cors_origins)
    same_site, secure = config.get("SESSION_COOKIE_SAMESITE"), config.get("SESSION_COOKIE_SECURE")
    if same_site == "None" and secure:
        return ok("cookies of foreign pages", f"reach the app from {origins}")
    if same_site == "None":
        return broken(
            "cookies of foreign pages",
            "SESSION_COOKIE_SAMESITE is None, and SESSION_COOKIE_SECURE is not set",
            "browsers discard a cookie with this combination, so nobody stays signed in",
            "set SESSION_COOKIE_SECURE to True and serve the app over HTTPS",
        )
    return warning(
        "cookies of foreign pages",
        f"SSE_PUSH_CORS_ORIGINS lists {origins}, and SESSION_COOKIE_SAMESITE is {same_site!r}",
        "requests from a page of another site then have no session cookie, so the app does not know the user",
        "pages of the same site (another subdomain) need no change; for pages of other sites set "
        "SESSION_COOKIE_SAMESITE to 'None' and SESSION_COOKIE_SECURE to True, or use tickets or tokens",
    )
