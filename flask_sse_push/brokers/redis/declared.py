"""The channel policies of the app, which the broker knows: finds publishers whose own policies differ.

The publisher decides how much of a channel's history is kept. So a publisher with other policies than the app
removes events that the app wants to keep. The state of each shard has a digest of the app's policies, and
publish.lua compares it with the digest of each publisher. The worker that started last declares its policies,
with its first publish or its first stream. If a publisher comes before all workers, its digest counts.

During a deployment, processes with old and with new policies run side by side. So a process that sees other
policies waits for `GRACE` seconds before it warns. A process that ends sooner warns when it ends, but only if
it started after the app's workers: an older process ends because it is deployed anew.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...config import ChannelPolicies
from ...errors import BrokerUnavailable
from .. import forks

logger = logging.getLogger(__name__)

#: Runs one command of Redis and returns its reply.
Run = Callable[..., Any]

#: A process that sees other policies warns after this many seconds, if they still differ then.
GRACE = 300.0
#: A process that sees other policies asks the broker again what differs after this many seconds.
LOOK_EVERY = 10.0
#: A time of start that is so many seconds in the future comes from another program, or from a wrong clock.
AHEAD = 60.0
#: The doctor tells of a process with other policies for so many seconds after its last event.
NOTED = 3600.0
#: At most how many bytes of policies the broker keeps as text, so that a warning can say what differs.
MAX_TEXT = 10_000
#: At most how many differences a message names.
MAX_NAMED = 3
#: At most how many differences one process remembers.
MAX_REMEMBERED = 20
#: What to do about other policies.
ADVICE = (
    "give all processes of the app the same SSE_PUSH_CHANNELS, SSE_PUSH_HISTORY_SIZE, SSE_PUSH_HISTORY_TTL "
    "and SSE_PUSH_HISTORY_BYTES"
)


@dataclass
class _Difference:
    """How the policies of this process differ from those that the broker has."""

    text: str
    owner: DeclaredPolicies
    #: Whether this process started after the worker that declared the other policies.
    is_newer: bool
    #: When this process first saw the other policies, or first after its own, on the monotonic clock.
    since: float
    #: When this process last saw them, give or take `LOOK_EVERY`.
    looked: float
    is_told: bool = False

    def tell(self) -> None:
        if not self.is_told:
            self.is_told = True
            text = "this process keeps other histories than the app: %s; so the app loses events; %s"
            logger.warning(text, self.text, ADVICE, extra={"event": "policies_differ", "why": self.text})


#: The differences that this process saw, by its own digest and the broker's. All announcers share them.
_seen: dict[tuple[str, bytes], _Difference] = {}
forks.call_in_child(_seen.clear)


def _warn_at_exit() -> None:
    for each in _seen.values():
        if each.is_newer and not each.owner.are_same and time.monotonic() < each.looked + GRACE:
            each.tell()


class DeclaredPolicies:
    """The policies of this process, compared with those that the broker knows. All shards share this object.

    Any thread may call the methods.
    """

    def __init__(self, policies: ChannelPolicies) -> None:
        self._policies = policies
        #: Whether the broker had the policies of this process at the last publish, or got them by `declare`.
        self.are_same = False
        #: Whether this process is a worker of the app.
        self._serves = False
        #: When this process last asked the broker what differs, on the monotonic clock.
        self._looked = -LOOK_EVERY
        #: When this process started, in milliseconds since 1970.
        self._started = int(forks.started_at() * 1000)

    def expect_to_declare(self) -> None:
        """Notes that this process is a worker of the app. If needed, `compare` then declares its policies."""
        self._serves = True

    def declare(self, state: str, run: Run) -> None:
        """Makes the policies of this worker those of the app, unless a younger worker has declared others.

        Blocks for at most two calls.

        :param state: the key of a shard's state.
        :raises BrokerUnavailable: if the broker does not reply in time.
        """
        self._serves = True
        digest, rules = run("HMGET", state, "policies", "rules")
        if self._started >= _declared(digest, rules)[0]:
            self._write(state, run)

    def _write(self, state: str, run: Run) -> None:
        # A note about another process may be from the deployment before, so it is dropped. A process that
        # still publishes with other policies writes it anew.
        own = self._policies.history_digest
        run("HSET", state, "policies", own, "rules", self._rules(), "other", "")
        self.are_same = True

    def _rules(self) -> str:
        digest, text = self._policies.history_digest, self._policies.history_text
        started = self._started if self._serves else 0
        return f"{digest} {started} {text if len(text) <= MAX_TEXT else ''}"

    def compare(self, digest: bytes, state: str, run: Run) -> None:
        """Declares the policies of this process, or warns in time that the broker has others.

        :param digest: what publish.lua returned: the digest in the state; `-` if the state had none and now
            has that of this process.
        :param state: the key of the state.
        """
        with contextlib.suppress(BrokerUnavailable):  # the events are published all the same
            if digest == b"-":
                self._write(state, run)
            elif (difference := self._difference(digest, state, run)) is not None:
                if self.are_same:  # until now the broker had the same policies: perhaps a deployment
                    difference.since = time.monotonic()
                self.are_same, difference.owner = False, self
                if time.monotonic() >= difference.since + GRACE:
                    difference.tell()

    def _difference(self, digest: bytes, state: str, run: Run) -> _Difference | None:
        """Returns what differs. Returns None if this process has declared its policies instead."""
        key, now = (self._policies.history_digest, digest), time.monotonic()
        seen = _seen.get(key)
        if seen is not None and now < self._looked + LOOK_EVERY:
            return seen
        self._looked = now
        rules = run("HGET", state, "rules")
        is_newer = self._started >= _declared(digest, rules)[0]
        if is_newer and self._serves:
            self._write(state, run)
            return None
        if seen is None:
            if len(_seen) >= MAX_REMEMBERED:
                return None
            if not _seen:
                atexit.register(_warn_at_exit)
            seen = _seen[key] = _Difference("", self, is_newer, since=now, looked=now)
        seen.looked, seen.is_newer, seen.text = now, is_newer, self.differences(digest, rules)
        if is_newer or seen.is_told:
            who = f"{os.getpid()}@{socket.gethostname()}"
            run("HSET", state, "other", f"{int(time.time())} {who} {self._rules()}")
        return seen

    def other_process(self, digest: bytes, note: bytes | None) -> str:
        """Returns a text about a process that published with other policies; "" if there is none.

        :param digest: the field `policies` of a shard's state.
        :param note: the field `other` of the state. Other programs may have written it.
        """
        at, _, rest = (note or b"").partition(b" ")
        who, _, rules = rest.partition(b" ")
        theirs = rules.partition(b" ")[0]
        seconds = time.time() - int(at) if re.fullmatch(rb"[0-9]{1,12}", at) else NOTED
        if seconds >= NOTED or theirs in (digest, self._policies.history_digest.encode()):
            return ""
        process, policies = (text[:100].decode(errors="replace") for text in (who, theirs))
        return (
            f"process {process} published {max(0, seconds):.0f} seconds ago with the channel policies "
            f"{policies} ({self._named(theirs, rules)})"
        )

    def differences(self, digest: bytes, rules: bytes | None) -> str:
        """Returns a text with both digests and, if `rules` is valid, what differs; "" for the same policies.

        :param digest: the field `policies` of a shard's state.
        :param rules: the field `rules` of the state. Other programs may have written it.
        """
        own, other = self._policies.history_digest, digest[:40].decode(errors="replace")
        if own == other:
            return ""
        return f"its channel policies are {own}, the broker has {other} ({self._named(digest, rules)})"

    def _named(self, digest: bytes, rules: bytes | None) -> str:
        there = _by_pattern(_declared(digest, rules)[1])
        named = "; ".join(_differences(_by_pattern(self._policies.history_text), there)) if there else ""
        return named or "the broker does not say what differs"


def _declared(digest: bytes | None, rules: bytes | None) -> tuple[int, bytes]:
    """Returns when the worker started that declared these policies, and the policies as text.

    The time is in milliseconds since 1970; 0 if a publisher declared the policies.
    """
    found = re.fullmatch(rb"(\S+) ([0-9]{1,15}) (.*)", rules or b"", re.DOTALL)
    if found is None or found[1] != digest:
        return 0, b""
    started = int(found[2])
    return started if started < (time.time() + AHEAD) * 1000 else 0, found[3]


def _differences(here: dict[str, Any], there: dict[str, Any]) -> list[str]:
    found = [
        f"{pattern or 'other channels'}: {_shown(here.get(pattern))} here, {_shown(there.get(pattern))} there"
        for pattern in dict.fromkeys([*here, *there])
        if here.get(pattern) != there.get(pattern)
    ]
    more = [f"{len(found) - MAX_NAMED} more"] if len(found) > MAX_NAMED else []
    return [*found[:MAX_NAMED], *more] or ["the patterns are in another order"]


def _by_pattern(text: str | bytes) -> dict[str, Any]:
    """Reads the text of policies: for each pattern what it keeps. Returns {} if the text is not valid."""
    try:
        found = {str(pattern)[:200]: tuple(kept) for pattern, *kept in json.loads(text)}
    except (ValueError, TypeError, RecursionError):
        return {}
    return found if all(len(kept) == 3 for kept in found.values()) else {}


def _shown(kept: tuple[Any, ...] | None) -> str:
    if kept is None:
        return "no policy"
    size, ttl, most = (str(each)[:20] for each in kept)
    return f"{size} events, {ttl} s" + (f", {most} bytes" if most != "0" else "")
