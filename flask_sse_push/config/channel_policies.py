"""Channel policies: what the settings say about one channel. Every part of the package asks them."""

from __future__ import annotations

import hashlib
import json
import re
import string
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property, partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from .settings import Settings

T = TypeVar("T")

#: The channel on which workers report to open admin pages. Only `@sse.authorize_admin` opens it to a user.
ADMIN_CHANNEL = "sse.admin"
#: The characters that the name of a channel may have.
CHARACTERS = f"{string.digits}{string.ascii_letters}_:./@-"
#: At most how many channels' policies are remembered. Clients choose which channels they ask for.
MAX_REMEMBERED = 10_000


class ChannelRule(NamedTuple):
    """What `SSE_PUSH_CHANNELS` says about the channels that match a pattern. None: it says nothing."""

    pattern: str
    history: int | None = None
    ttl: float | None = None
    bytes: int | None = None
    batch_ms: int | None = None
    public: bool | None = None
    presence: bool | None = None


@dataclass(frozen=True, slots=True)
class ChannelPolicy:
    """What the settings say about one channel."""

    #: The pattern of `SSE_PUSH_CHANNELS` that matched the channel; "" if none matched.
    pattern: str
    #: At most how many events are kept.
    history: int
    #: How long the events are kept after the newest event, in seconds.
    ttl: float
    #: At most how many bytes the kept events have together; 0 means no limit.
    bytes: int
    #: How long an event waits for its batch, in milliseconds; 0 means that events are sent at once.
    batch_ms: int
    #: Whether everybody may listen.
    public: bool
    #: Whether the channel's users are counted.
    presence: bool
    #: `history`, `ttl` in milliseconds and `bytes` as one text, which publish.lua reads.
    kept: str = field(init=False)

    def __post_init__(self) -> None:
        kept = f"{self.history} {max(1, round(self.ttl * 1000))} {self.bytes}"
        object.__setattr__(self, "kept", kept)  # the dataclass is frozen


#: Old reports of workers are of no use, so few are kept, and not for long.
ADMIN_POLICY = ChannelPolicy("", 100, 60.0, 0, 0, False, False)


class ChannelPolicies(dict[str, ChannelPolicy]):
    """The policies of all channels: `policies["user:7"]`. Any thread may use them.

    The first rule whose pattern matches a channel counts. What the rule leaves out comes from the other
    settings. No rule applies to the package's own channels.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings
        #: The rules of `SSE_PUSH_CHANNELS`, in their order.
        self.rules = settings.channels
        #: Whether events of any channel are sent in batches.
        self.have_batches = bool(settings.batch_ms) or any(rule.batch_ms for rule in self.rules)
        #: Whether the users of any channel are counted.
        self.have_presence = bool(settings.presence_channels) or any(rule.presence for rule in self.rules)
        #: How long the events of a channel are kept if no rule says otherwise, in seconds.
        self.default_ttl = settings.history_ttl
        #: The longest time that any channel's events are kept after the newest event, in seconds.
        self.longest_ttl = max([settings.history_ttl, *[rule.ttl for rule in self.rules if rule.ttl]])
        #: The shortest time that any channel's events are kept after the newest event, in seconds.
        self.shortest_ttl = min([settings.history_ttl, *[rule.ttl for rule in self.rules if rule.ttl]])

    @cached_property
    def history_text(self) -> str:
        """What is kept of the histories, as JSON: `[pattern, events, seconds, bytes]` for each rule.

        The pattern "" comes last and stands for all other channels. Rules before it that keep the same are
        left out.
        """
        settings = self._settings
        others = [settings.history_size, settings.history_ttl, settings.history_bytes]
        rules = [
            [rule.pattern, *map(_first, (rule.history, rule.ttl, rule.bytes), others)] for rule in self.rules
        ]
        while rules and rules[-1][1:] == others:
            del rules[-1]
        return json.dumps([*rules, ["", *others]], separators=(",", ":"))

    @cached_property
    def history_digest(self) -> str:
        """A short digest of `history_text`. Processes with the same digest keep the same histories."""
        return hashlib.sha256(self.history_text.encode()).hexdigest()[:12]

    def closed_by(self, channel: str) -> str | None:
        """Returns the pattern of the policy that says that a channel is not public; None if none says so."""
        rule = self._rule(channel)
        return rule.pattern if rule.public is False else None

    def __missing__(self, channel: str) -> ChannelPolicy:
        if len(self) >= MAX_REMEMBERED:
            self.clear()
        policy = self[channel] = self._policy(channel)
        return policy

    def _policy(self, channel: str) -> ChannelPolicy:
        if channel == ADMIN_CHANNEL:
            return ADMIN_POLICY
        settings, rule = self._settings, self._rule(channel)
        is_own = channel.startswith(("!", "*"))
        return ChannelPolicy(
            rule.pattern,
            _first(rule.history, settings.history_size),
            _first(rule.ttl, settings.history_ttl),
            _first(rule.bytes, settings.history_bytes),
            _first(rule.batch_ms, 0 if is_own else _wait(channel, settings.batch_ms)),
            _first(rule.public, not is_own and _matches(channel, settings.public_channels)),
            _first(rule.presence, not is_own and _matches(channel, settings.presence_channels)),
        )

    def _rule(self, channel: str) -> ChannelRule:
        if not channel.startswith(("!", "*")):
            for rule in self.rules:
                if fnmatchcase(channel, rule.pattern):
                    return rule
        return ChannelRule("")


class OpenUserChannel(NamedTuple):
    """A user's own channel to which everybody may listen, such as `user:7`, and the setting that opens it."""

    channel: str
    #: The pattern that opens the channel, and where it stands, such as "'user:*' in SSE_PUSH_CHANNELS".
    opened_by: str
    #: Whether the pattern begins with `user:`, so that it was written for such channels.
    is_named: bool


def open_user_channel(settings: Settings) -> OpenUserChannel | None:
    """Returns a user's channel to which everybody may listen; None if there is none.

    Tries some channels that match the patterns, so it may miss the channel of a rare pattern.
    """
    rules = [(rule.pattern, "SSE_PUSH_CHANNELS") for rule in settings.channels if rule.public]
    for pattern, key in [*rules, *[(each, "SSE_PUSH_PUBLIC_CHANNELS") for each in settings.public_channels]]:
        examples = [
            re.sub(r"\[.+?\]|.", partial(_example, stars), pattern) for stars in ("", "7", "user:7", ":7")
        ]
        for channel in ("user:7", *examples):
            is_users = re.match("user:.", channel) and fnmatchcase(channel, pattern)
            if is_users and settings.policies[channel].public:
                return OpenUserChannel(channel, f"{pattern!r} in {key}", pattern.startswith("user:"))
    return None


def _example(stars: str, part: re.Match[str]) -> str:
    """Returns a text that a part of a pattern matches.

    :param stars: the text for a star.
    """
    if part[0] in ("*", "?"):
        return stars if part[0] == "*" else "7"
    return next((each for each in CHARACTERS if fnmatchcase(each, part[0])), part[0])


def _first(chosen: T | None, otherwise: T) -> T:
    return otherwise if chosen is None else chosen


def _matches(channel: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(channel, pattern) for pattern in patterns)


def _wait(channel: str, waits: tuple[tuple[str, int], ...]) -> int:
    return next((wait for pattern, wait in waits if fnmatchcase(channel, pattern)), 0)
