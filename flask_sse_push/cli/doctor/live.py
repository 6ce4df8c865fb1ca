"""Asks the running app for its server, its settings, and the version of HTTP of the doctor's request."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ...auth import doctor_pass
from ...config import Settings
from ...web.self_report import shown_settings
from .exchange import Target, Withheld, exchange
from .finding import Finding, broken, ok, warning

#: At most how many seconds the running app may take to answer.
TIMEOUT = 5.0
#: By how many seconds the clock of the app's machine may differ.
SKEW = 5.0
#: Settings whose values must be the same in all processes, because they say where events lie.
SHARED = ("SSE_PUSH_PREFIX", "SSE_PUSH_SHARDS")


class Live(NamedTuple):
    """What the running app has said about itself; see `web.self_report`.

    `body` is empty if the app said nothing. `refused` says whether the app did not accept the pass.
    """

    body: Mapping[str, Any]
    refused: bool = False
    skew: float = 0.0  # by how many seconds the clock of the app's machine is ahead of this machine's clock

    @property
    def gunicorn(self) -> Mapping[str, Any] | None:
        found = self.body.get("gunicorn")
        return found if isinstance(found, dict) else None

    @property
    def runs_elsewhere(self) -> bool:
        """Whether the app has answered, and another server than gunicorn runs it."""
        return bool(self.body) and self.gunicorn is None

    @property
    def protocol(self) -> str:
        return str(self.body.get("protocol", ""))


NOTHING_SAID = Live({})


def ask_app(target: Target, secret: str) -> Live:
    """Returns what the running app at a stream's URL says about itself. Blocks for some seconds.

    :param secret: a pass, which takes the app's secret key to make.
    """
    try:
        with exchange(target.below("/doctor"), {doctor_pass.HEADER: secret}, TIMEOUT) as answer:
            body = answer.json()
            if answer.status == 200 and isinstance(body.get("settings"), dict):
                return Live(body, skew=_number(body.get("time")) - time.time())
            return Live({}, refused=answer.status == 403 and "pass" in str(body.get("message")))
    except (Withheld, OSError, http.client.HTTPException, ValueError):
        return Live({})  # the check of the connection says why


def _number(value: Any) -> float:
    return float(value) if type(value) in (int, float) and abs(value) < 1e12 else 0.0


def examine_live(live: Live, settings: Settings, digest: str) -> Iterator[Finding]:
    """Yields findings about what the running app says. Pure.

    :param settings: the settings of this command.
    :param digest: the digest of this command's broker URL.
    """
    if live.refused:
        yield warning(
            "running app",
            "the app at --url does not accept this command's SECRET_KEY",
            "the app has another secret key or none, or two workers have different keys: each refuses "
            "sessions and tickets that the other has signed; also, the doctor learns nothing from the app",
            "run the doctor with the environment of gunicorn, and give all workers the same SECRET_KEY",
        )
    if not live.body:
        return
    yield _server(live)
    yield from _settings(live, settings, digest)
    if abs(live.skew) > SKEW:
        yield warning(
            "clock",
            f"the clock of the app's machine differs from this machine's by {live.skew:+.0f} seconds",
            "tickets and tokens may count as expired, and times in logs do not match",
            "run a time service (chrony, systemd-timesyncd) on both machines",
        )


def _server(live: Live) -> Finding:
    name = str(live.body.get("server"))
    if live.gunicorn is not None or not live.body.get("problem"):
        return ok("running app", f"is served by {name}")
    problem = str(live.body["problem"])
    what, _, advice = problem.rpartition("; ")
    is_blocked = live.body.get("cost") == "SERVER"
    make = broken if is_blocked else warning
    return make("worker class", f"the running app: {what or problem}", "streams are refused with 503", advice)


def _settings(live: Live, settings: Settings, digest: str) -> Iterator[Finding]:
    theirs = live.body["settings"]
    ours = shown_settings(settings)
    differing = [key for key in ours if key in theirs and str(theirs[key]) != ours[key]]
    shown = [f"{key} is {theirs[key]} there and {ours[key]} here" for key in differing]
    if live.body.get("broker") != digest:
        shown.insert(0, "SSE_PUSH_BROKER_URL has another value there")
    if not shown:
        yield ok("settings", "the running app has the same settings as this command")
        return
    what = "the running app has other settings than this command: " + "; ".join(shown)
    why = "what this command publishes and checks is not what the streams of the running app get"
    advice = "run commands and publishers with the environment of gunicorn; restart gunicorn after a change"
    is_elsewhere = live.body.get("broker") != digest or any(key in SHARED for key in differing)
    yield (broken if is_elsewhere else warning)("settings", what, why, advice)
