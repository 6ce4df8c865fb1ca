"""The broker on Redis or Valkey: lists hold the history, and one script stores and announces events.

Keys, all under one hash tag: `{prefix:0}:state`, `{prefix:0}:heads`, `{prefix:0}:list:<channel>`,
`{prefix:0}:once:<idempotency id>`, `{prefix:0}:claim:<name>`. Pub/sub names: `{prefix:0}:live:<channel>`,
`{prefix:0}:inbox:<worker>`. Each script in `lua/` begins with a description of its keys.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Mapping, Sequence
from functools import partial
from importlib import resources
from typing import Any, NamedTuple

from redis import BlockingConnectionPool

from ...errors import BrokerUnavailable
from ...protocol.cursor import Cursor, Lineage, belongs
from ...protocol.entry import Entry, Publication
from ..base import Bounds, Broker, History, Link, channel_history
from .client import SHARE, Call, Clients, call_within, milliseconds, pool_options, translated_errors
from .counts import RedisCounts
from .link import PLAIN, PubSub, RedisLink

#: How long a publish without an idempotency id is remembered, in seconds: long enough for its second try.
RETRY_MEMORY = 10.0
#: How long each try waits for replicas, as a share of a call's time. Reading the reply may take SHARE,
#: which is a bit more.
WAIT_SHARE = SHARE * 0.8
EPOCH_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
#: Settings of Redis that `flask sse doctor` checks.
INSPECTED = "maxmemory", "maxmemory-policy", "client-output-buffer-limit", "appendonly", "save", "maxclients"


class ShardNumber(NamedTuple):
    """The number of a shard, from 0, and how many shards there are."""

    number: int
    of: int


def hash_tag(prefix: str, shard: int) -> str:
    """Returns the prefix of all keys of a shard. A cluster keeps keys with the same `{…}` in one slot."""
    return "{" + f"{prefix}:{shard}" + "}"


def connect(url: str, *, bounds: Bounds, prefix: str, timeout: float, wait_replicas: int = 0) -> RedisBroker:
    """Returns the broker at a redis://, rediss:// or unix:// URL. Opens no connection yet.

    :param wait_replicas: how many replicas must have an event before `publish` returns.
    :raises ValueError: if redis-py cannot read the URL.
    """
    clients = Clients(partial(BlockingConnectionPool.from_url, url, **pool_options(timeout)))
    return RedisBroker(clients, bounds, prefix, timeout, wait_replicas)


class RedisBroker(Broker):
    """The broker on one Redis server. Calls share a pool of connections; each link has its own connection.

    :param timeout: how long one call may take, in seconds.
    :param shard: which of several shards this broker is; None if there is only one shard.
    """

    def __init__(
        self,
        clients: Clients,
        bounds: Bounds,
        prefix: str,
        timeout: float,
        wait_replicas: int = 0,
        pubsub: PubSub = PLAIN,
        shard: ShardNumber | None = None,
    ) -> None:
        self._shard = shard
        self._pubsub = pubsub
        self._clients = clients
        self._wait_replicas = wait_replicas
        self._bounds = bounds
        self._timeout = timeout
        self._call: Call = partial(call_within, timeout)
        self.pool = clients.main.connection_pool
        self.base = hash_tag(prefix, shard.number if shard else 0) + ":"
        self._state_keys = self.base + "state", self.base + "heads"
        self._live = self.base + "live:"
        self._publish = clients.main.register_script(_script("publish"))
        self._history = clients.main.register_script(_script("history"))
        self.counts = RedisCounts(clients, self.base, self._call)

    def publish(self, publications: Sequence[Publication], once: str | None = None) -> list[Cursor]:
        if not publications:
            return []
        remembered = self._bounds.ttl if once else RETRY_MEMORY
        once = once or "~" + secrets.token_hex(8)  # an app's idempotency id has no `~`
        channels = list(dict.fromkeys(name for each in publications for name in each.lists))
        index = {name: at for at, name in enumerate(channels, 1)}
        keys = [*self._state_keys, f"{self.base}once:{once}", *map(self._list_key, channels)]
        args: list[Any] = [self._fresh_epoch(), self._live, self._bounds.size]
        args += [milliseconds(self._bounds.ttl), milliseconds(remembered), self._pubsub.publish]
        args += [len(channels), *channels]
        for each in publications:
            lists = each.lists
            args += [each.meta(), each.body, len(lists), *(index[name] for name in lists)]
        epoch, first = self._call(lambda: self._store(keys, args))
        return [Cursor(epoch.decode(), int(first) + n) for n in range(len(publications))]

    def _store(self, keys: Sequence[str], args: Sequence[Any]) -> Any:
        if not self._wait_replicas:
            return self._publish(keys=keys, args=args, client=self._clients.current)
        # Redis's command WAIT waits only for writes of its own connection. The script writes in every try,
        # even if an earlier try stored the event, so WAIT always has a write to wait for.
        with self._clients.current.pipeline(transaction=False) as pipe:
            self._publish(keys=keys, args=args, client=pipe)
            pipe.wait(self._wait_replicas, milliseconds(self._timeout * WAIT_SHARE))
            reply, replicas = pipe.execute()
        if replicas < self._wait_replicas:
            raise BrokerUnavailable(f"Redis: {replicas} of {self._wait_replicas} replicas have the event")
        return reply

    def history(self, after: Mapping[str, int], inbox: str) -> History:
        keys = [*self._state_keys, *map(self._list_key, after)]
        args: list[Any] = [self._fresh_epoch(), self._inbox(inbox), self._pubsub.publish]
        for name, position in after.items():
            args += [name, position]
        epoch, last, horizon, forks, *rest = self._call(
            lambda: self._history(keys=keys, args=args, client=self._clients.current)
        )
        replies = zip(after.items(), rest[::2], rest[1::2], strict=True)
        epoch, lineage = epoch.decode(), _lineage(forks)
        channels = {
            name: channel_history(at, _entries(name, epoch, lineage, stored), int(head), int(horizon))
            for (name, at), head, stored in replies
        }
        return History(epoch, int(last), channels, lineage)

    def claim(self, name: str, seconds: float) -> bool:
        key, mine = f"{self.base}claim:{name}", secrets.token_bytes(8)

        def take() -> bool:
            # If the reply to the first try was lost, the second try finds the name claimed with the same
            # value.
            client = self._clients.current
            taken = client.set(key, mine, px=milliseconds(seconds), nx=True)
            return bool(taken) or client.get(key) == mine

        return bool(self._call(take))

    def inspect(self) -> dict[str, Any]:
        facts: dict[str, Any] = dict(self._call(lambda: self._clients.current.info()))
        seconds, micros = self._call(lambda: self._clients.current.time())
        facts["time"] = seconds + micros / 1e6
        for name in INSPECTED:
            with contextlib.suppress(BrokerUnavailable):  # a hosted Redis may forbid CONFIG
                values = self._call(partial(self._config_get, name))
                facts.update({_text(key): _text(value) for key, value in values.items()})
        return facts

    def _config_get(self, name: str) -> Any:
        return self._clients.current.config_get(name)

    def heads(self, most: int) -> dict[str, int]:
        heads = self._state_keys[1]
        newest = self._call(lambda: self._clients.current.zrevrange(heads, 0, most, withscores=True))
        return {_text(name): int(head) for name, head in newest if name}  # state.lua adds the name ""

    def link(self, inbox: str) -> Link:
        pool = self._clients.main.connection_pool
        with translated_errors():
            # The connection does not come from the pool, because the pool would close it while the link
            # reads.
            connection: Any = pool.connection_class(**pool.connection_kwargs)
            connection.connect()
        link = RedisLink(connection, self._live, self._inbox(inbox), self._pubsub)
        link.open()
        return link

    def wake(self, inbox: str) -> None:
        command = self._pubsub.publish, self._inbox(inbox), b""
        with contextlib.suppress(BrokerUnavailable):
            self._call(lambda: self._clients.current.execute_command(*command))

    def close(self) -> None:
        self._clients.close()

    def _fresh_epoch(self) -> str:
        """Returns a random name for a new epoch.

        With several shards, the name begins with the number of the shard and the number of shards.
        """
        if self._shard is None:
            return secrets.token_hex(4)
        digits = "".join(secrets.choice(EPOCH_DIGITS) for _ in range(4))
        return f"{self._shard.number}{self._shard.of}{digits}"

    def _list_key(self, channel: str) -> str:
        return f"{self.base}list:{channel}"

    def _inbox(self, inbox: str) -> str:
        return f"{self.base}inbox:{inbox}"


def _script(name: str) -> str:
    folder = resources.files(__package__) / "lua"
    return "".join((folder / f"{part}.lua").read_text("utf-8") for part in ("state", name))


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _lineage(forks: bytes) -> Lineage:
    """Reads the lineage that state.lua wrote: `<epoch>:<last valid position> …`. Ignores other words."""
    return {epoch.decode(): int(last) for epoch, last in re.findall(rb"([a-z0-9]+):([0-9]{1,16})\b", forks)}


def _entries(channel: str, epoch: str, lineage: Lineage, stored: Sequence[bytes]) -> list[Entry]:
    """Returns the entries of `epoch`, and those of earlier epochs that `lineage` says are still valid.

    Ignores items in `stored` that are not entries. If such an item has replaced an entry, the `prev` of the
    next entry shows the gap.
    """
    entries = []
    for each in stored:
        with contextlib.suppress(ValueError):
            entry = Entry.parse(each, channel)
            if belongs(Cursor(entry.epoch, entry.id), epoch, lineage):
                entries.append(entry)
    return entries
