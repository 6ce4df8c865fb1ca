"""The channel policies that the broker knows: finds publishers whose own policies differ.

The publisher decides how much of a channel's history is kept. So a publisher with other policies than the app
removes events that the app wants to keep. The state of each shard has a digest of the policies. The app's
workers write this digest when they start. If a publisher comes before them, it writes its own digest.
publish.lua compares the digest in the state with the digest of each publisher.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Callable
from typing import Any

from ...config import ChannelPolicies
from ...errors import BrokerUnavailable

logger = logging.getLogger(__name__)

#: Runs one command of Redis and returns its reply.
Run = Callable[..., Any]

#: For this many seconds, a process that had the same policies as the broker does not warn that they differ.
#: Nor does a new worker of the app. During a rolling deployment, processes of two versions run side by side.
GRACE = 300.0
#: At most how many bytes of policies the broker keeps as text, so that a warning can say what differs.
MAX_TEXT = 10_000
#: At most how many differences a message names.
MAX_NAMED = 3
#: At most about how many digests one process warns.
MAX_WARNED = 20
#: What to do about other policies.
ADVICE = (
    "give all processes of the app the same SSE_PUSH_CHANNELS, SSE_PUSH_HISTORY_SIZE, SSE_PUSH_HISTORY_TTL "
    "and SSE_PUSH_HISTORY_BYTES"
)


class DeclaredPolicies:
    """The policies of this process, compared with those that the broker knows. All shards share this object.

    Any thread may call the methods.
    """

    def __init__(self, policies: ChannelPolicies) -> None:
        self._policies = policies
        #: Whether the broker had the policies of this process at the last publish, or got them by `declare`.
        self.are_same = False
        self._differ_since: float | None = None
        self._warned: set[bytes] = set()

    def expect_to_declare(self) -> None:
        """Notes that this process will call `declare` with its first stream."""
        self._differ_since = time.monotonic()

    def declare(self, state: str, run: Run) -> None:
        """Writes the policies of this process into the state of a shard. Blocks for one call.

        :param state: the key of the state.
        :raises BrokerUnavailable: if the broker does not reply in time.
        """
        run("HSET", state, "policies", self._policies.history_digest, "rules", self._rules())
        self.are_same = True

    def _rules(self) -> str:
        digest, text = self._policies.history_digest, self._policies.history_text
        return f"{digest} {text if len(text) <= MAX_TEXT else ''}"

    def compare(self, digest: bytes, state: str, run: Run) -> None:
        """Warns that the broker has other policies than this process, once for each digest.

        :param digest: what publish.lua returned: the digest in the state; `-` if the state had none and now
            has that of this process.
        :param state: the key of the state.
        """
        with contextlib.suppress(BrokerUnavailable):  # the events are published all the same
            if digest == b"-":
                self.are_same = True
                run("HSET", state, "rules", self._rules())
            elif self._must_warn(digest):
                differences = self.differences(digest, run("HGET", state, "rules"))
                text = "this process keeps other histories than the app: %s; so the app loses events; %s"
                extra = {"event": "policies_differ", "why": differences}
                logger.warning(text, differences, ADVICE, extra=extra)

    def _must_warn(self, digest: bytes) -> bool:
        if self.are_same:  # they have changed in the meantime, perhaps by a deployment
            self._differ_since = time.monotonic()
        self.are_same = False
        if self._differ_since is not None and time.monotonic() < self._differ_since + GRACE:
            return False
        if digest in self._warned or len(self._warned) >= MAX_WARNED:
            return False
        self._warned.add(digest)
        return True

    def differences(self, digest: bytes, rules: bytes | None) -> str:
        """Returns a text with both digests and, if `rules` is valid, what differs; "" for the same policies.

        :param digest: the field `policies` of a shard's state.
        :param rules: the field `rules` of the state. Other programs may have written it.
        """
        own, other = self._policies.history_digest, digest[:40].decode(errors="replace")
        if own == other:
            return ""
        of, _, text = (rules or b"").partition(b" ")
        there = _by_pattern(text) if of == digest else {}
        named = "; ".join(_differences(_by_pattern(self._policies.history_text), there)) if there else ""
        named = named or "the broker does not say what differs"
        return f"its channel policies are {own}, the broker has {other} ({named})"


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
