"""Finds out which rights the Redis user lacks, and which commands the server does not know.

Inside a transaction Redis checks the rights for each command when it gets the command, not when it runs it.
So the check begins a transaction, sends each command, and discards the transaction. If the user may not
use transactions, the commands run on a key that holds a text and expires after a second. Commands for lists
and hashes fail there without effect.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from redis.exceptions import NoPermissionError, ResponseError

from .broker import RedisBroker
from .client import connection_apart
from .link import PLAIN, PubSub

#: The commands with a key that the package calls, also in its scripts, and how many arguments follow the key.
#: Redis checks the number of arguments before it checks the rights.
COMMANDS: dict[str, int] = {
    "EXPIRE": 1, "GET": 0, "HDEL": 1, "HGET": 1, "HINCRBY": 2, "HLEN": 0, "HMGET": 1, "HSCAN": 1,
    "HSET": 2, "LINDEX": 1, "LLEN": 0, "LRANGE": 2, "LTRIM": 2, "RPUSH": 1, "ZADD": 2, "ZRANGEBYSCORE": 2,
    "ZREM": 1, "ZREMRANGEBYSCORE": 2, "ZREVRANGE": 2, "ZREVRANGEBYSCORE": 2, "ZSCORE": 1, "PEXPIRE": 1,
    "DEL": 0,
}  # fmt: skip
#: Commands without a key, as they are sent.
WITHOUT_KEY = (
    ("EVALSHA", "0" * 40, "0"),
    ("SCRIPT", "LOAD", "return 1"),
    ("INFO", "replication"),
    ("TIME",),
    ("CLIENT", "SETNAME", "flask-sse-push"),
)
#: The same commands by their names in rules of ACL SETUSER. SET too, and SELECT for a URL with a database.
PLAIN_NAMES = ("CLIENT|SETNAME", "EVALSHA", "INFO", "SCRIPT|LOAD", "SELECT", "SET", "TIME")
#: Commands that hosted servers hide, and that the package can do without.
OPTIONAL = ("INFO", "CLIENT")
_USER = re.compile(r"[Uu]ser (\S+) has no permissions")


class Missing(NamedTuple):
    """The rights that a Redis user lacks, and the commands that the server does not know.

    `rules` are in the form of the command ACL SETUSER, such as `+rpush`; empty if nothing is missing.
    """

    user: str
    rules: tuple[str, ...]
    unknown: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """The line for redis-cli that grants the rights."""
        return f"ACL SETUSER {self.user} {' '.join(self.rules)}"


def missing_rights(broker: RedisBroker, prefix: str, *, waits: bool = False) -> Missing:
    """Returns which rights the user of the broker URL lacks. Blocks for some sixty small calls.

    :param prefix: the setting SSE_PUSH_PREFIX.
    :param waits: whether `publish` waits for replicas, which needs the command WAIT.
    :raises BrokerUnavailable: if the server does not answer.
    """
    user = str(broker.pool.connection_kwargs.get("username") or "default")
    # redis-py names each new connection, which needs a right too.
    with connection_apart(broker.pool, client_name=None) as connection:
        return _Check(connection, user, broker).run(prefix, waits=waits)


def all_rules(prefix: str, pubsub: PubSub = PLAIN) -> tuple[str, ...]:
    """Returns the rules of ACL SETUSER that grant all rights that the package needs, and few others."""
    names = [*COMMANDS, *PLAIN_NAMES, pubsub.publish, pubsub.subscribe]
    commands = [f"+{name.lower()}" for name in [*names, pubsub.unsubscribe]]
    return (*sorted(commands), *_patterns(prefix, "~&"))


def _patterns(prefix: str, kinds: str) -> list[str]:
    return [f"{kind}{{{prefix}:*}}:*" for kind in kinds]


class _Check:
    """Tries commands over one connection, and notes what Redis refuses."""

    def __init__(self, connection: Any, user: str, broker: RedisBroker) -> None:
        self._connection = connection
        self._key = f"{broker.base}list:doctor"
        self._live = f"{broker.base}live:doctor"
        self._inbox = f"{broker.base}inbox:doctor"
        self._pubsub = broker.pubsub
        self._user = user
        self._rules: dict[str, None] = {}
        self._unknown: dict[str, None] = {}

    def run(self, prefix: str, *, waits: bool) -> Missing:
        can_discard = self._reply("MULTI") is None
        if not can_discard and "no permissions" in (self._reply(*self._set) or ""):
            return Missing(self._user, all_rules(prefix, self._pubsub))
        self._try_commands(prefix, waits=waits)
        if can_discard:
            self._reply("DISCARD")
        subscribe, unsubscribe = self._pubsub.subscribe, self._pubsub.unsubscribe
        for command in ((subscribe, self._live), (unsubscribe, self._live), (subscribe, self._inbox)):
            self._note(command, prefix)
        rules = (*self._rules, *self._hidden_rules(prefix))
        return Missing(self._user, rules, tuple(self._unknown))

    @property
    def _set(self) -> tuple[str, ...]:
        return ("SET", self._key, "", "PX", "1000")

    def _hidden_rules(self, prefix: str) -> list[str]:
        """Returns the rules for keys and channels if Redis refused all commands before it checked them."""
        lacks_all_keys = all(f"+{name.lower()}" in self._rules for name in COMMANDS)
        lacks_pubsub = {f"+{self._pubsub.publish.lower()}", f"+{self._pubsub.subscribe.lower()}"}
        kinds = ("~" if lacks_all_keys else "") + ("&" if lacks_pubsub <= self._rules.keys() else "")
        return _patterns(prefix, kinds)

    def _try_commands(self, prefix: str, *, waits: bool) -> None:
        keyed = [(name, self._key, *("1" for _ in range(count))) for name, count in COMMANDS.items()]
        published = [(self._pubsub.publish, name, "") for name in (self._live, self._inbox)]
        wait = [("WAIT", "1", "1")] if waits else []
        for command in [self._set, *keyed, *WITHOUT_KEY, *published, *wait]:
            self._note(command, prefix)

    def _note(self, command: Sequence[str], prefix: str) -> None:
        """Sends a command. If Redis refuses it for lack of rights, notes the rule that would allow it."""
        refusal = self._reply(*command) or ""
        if "unknown command" in refusal and command[0] not in OPTIONAL:
            self._unknown[command[0]] = None
        if "no permissions" not in refusal:
            return
        found = _USER.search(refusal)
        self._user = found[1] if found and found[1] != "this" else self._user
        if "to run" not in refusal:  # each version has its own words for a refused key or channel
            rule = _patterns(prefix, "&" if "channel" in refusal else "~")[0]
        else:
            rule = "+" + "|".join(command[: 2 if command[0] in ("SCRIPT", "CLIENT") else 1]).lower()
        self._rules[rule] = None

    def _reply(self, *command: str) -> str | None:
        """Sends a command. Returns the text of the error if Redis refuses it, else None."""
        self._connection.send_command(*command, check_health=False)
        try:
            self._connection.read_response()
        except NoPermissionError as error:
            return f"no permissions: {error}"
        except ResponseError as error:  # also from a server that takes no writes
            return str(error)
        return None
