"""The broker on Redis or Valkey: lists hold the history, one script stores and announces.

Keys, all under one hash tag: `{prefix:0}:state`, `{prefix:0}:heads`, `{prefix:0}:list:<channel>`,
`{prefix:0}:once:<idempotency id>`, `{prefix:0}:claim:<name>`. Pub/sub: `{prefix:0}:live:<channel>`,
`{prefix:0}:inbox:<worker>`.
The scripts in `lua/` say what each holds.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib import resources
from typing import Any, NamedTuple, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError
from redis.retry import Retry

from ...errors import BrokerUnavailable
from ...protocol.cursor import Cursor, Lineage, belongs
from ...protocol.entry import Entry, Publication
from ..base import Bounds, Broker, Echo, History, Link, LinkMessage, LiveEvent, Subscribed, channel_history
from .counts import RedisCounts

T = TypeVar("T")

#: Connections one process opens for commands; callers beyond wait their turn.
MAX_CONNECTIONS = 20
#: Seconds an answer is remembered for a publish without an id of the caller: it must only outlive a retry.
RETRY_MEMORY = 10.0
#: Tries of one call within its time. The second is for a connection that had died unnoticed.
TRIES = 2
#: Each try may wait for a free connection, connect and read: none of it longer than this share of the time.
SHARE = 1 / 4
#: Each try waits for replicas for this share of the time: less than the reply of a command may take.
WAIT_SHARE = SHARE * 0.8
#: Characters of an epoch.
EPOCH_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
#: Settings of Redis that matter here.
INSPECTED = (
    "maxmemory",
    "maxmemory-policy",
    "client-output-buffer-limit",
    "appendonly",
    "save",
    "maxclients",
)


class PubSub(NamedTuple):
    """The commands of a kind of pub/sub, and what its messages begin with."""

    publish: str
    subscribe: str
    unsubscribe: str
    message: bytes
    subscribed: bytes
    unsubscribed: bytes


PLAIN = PubSub("PUBLISH", "SUBSCRIBE", "UNSUBSCRIBE", b"message", b"subscribe", b"unsubscribe")
#: Stays within the nodes that hold the channel's slot.
SHARDED = PubSub("SPUBLISH", "SSUBSCRIBE", "SUNSUBSCRIBE", b"smessage", b"ssubscribe", b"sunsubscribe")


class Shard(NamedTuple):
    """One of several shards."""

    number: int
    of: int


def hash_tag(prefix: str, shard: int) -> str:
    """What all keys of a shard begin with: a cluster keeps them in one slot."""
    return "{" + f"{prefix}:{shard}" + "}"


def connect(url: str, *, bounds: Bounds, prefix: str, timeout: float, wait_replicas: int = 0) -> RedisBroker:
    """The broker at a redis://, rediss:// or unix:// URL. Opens nothing yet.

    :param wait_replicas: how many replicas must have an event before it counts as published.
    :raises ValueError: for a URL that redis-py cannot read.
    """
    pool = redis.BlockingConnectionPool.from_url(
        url,
        max_connections=MAX_CONNECTIONS,
        timeout=timeout * SHARE,
        **without_retries(timeout * SHARE),
    )
    return RedisBroker(redis.Redis(connection_pool=pool), bounds, prefix, timeout, wait_replicas)


def without_retries(timeout: float) -> dict[str, Any]:
    """redis-py's options for a connection that waits for at most `timeout` seconds and does nothing twice."""
    return {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        # redis-py would run a script again after a lost reply, and say nothing.
        "retry": Retry(NoBackoff(), 0),
        "health_check_interval": 0,
        "protocol": 2,
        "client_name": "flask-sse-push",
    }


def _script(name: str) -> str:
    folder = resources.files(__package__) / "lua"
    return "".join((folder / f"{part}.lua").read_text("utf-8") for part in ("state", name))


def _texts(answer: Any) -> dict[str, str]:
    return {_text(key): _text(value) for key, value in answer.items()}


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


class RedisBroker(Broker):
    """Commands by a small pool of connections; each link is a connection of its own."""

    def __init__(
        self,
        client: redis.Redis,
        bounds: Bounds,
        prefix: str,
        timeout: float,
        wait_replicas: int = 0,
        pubsub: PubSub = PLAIN,
        shard: Shard | None = None,
    ) -> None:
        self._shard = shard
        self._pubsub = pubsub
        self._client = client
        self._wait_replicas = wait_replicas
        self._bounds = bounds
        self._timeout = timeout
        self.pool = client.connection_pool
        self.base = self._base = hash_tag(prefix, shard.number if shard else 0) + ":"
        self._live = self._base + "live:"
        self._publish = client.register_script(_script("publish"))
        self._history = client.register_script(_script("history"))
        self.counts = RedisCounts(client, self._base, self._call)

    def publish(self, publications: Sequence[Publication], once: str | None = None) -> list[Cursor]:
        if not publications:
            return []
        remembered = self._bounds.ttl if once else RETRY_MEMORY
        once = once or "~" + secrets.token_hex(8)  # ~ keeps ours apart from the callers' ids
        channels = list(dict.fromkeys(name for each in publications for name in each.lists))
        place = {name: at for at, name in enumerate(channels, 1)}
        keys = [*self._state_keys(), f"{self._base}once:{once}", *map(self._list_key, channels)]
        args: list[Any] = [self._fresh_epoch(), self._live, self._bounds.size]
        args += [_ms(self._bounds.ttl), _ms(remembered), self._pubsub.publish, len(channels), *channels]
        for each in publications:
            args += [each.meta(), each.body, len(each.lists), *(place[name] for name in each.lists)]
        epoch, first = self._call(lambda: self._store(keys, args))
        return [Cursor(epoch.decode(), int(first) + n) for n in range(len(publications))]

    def _store(self, keys: Sequence[str], args: Sequence[Any]) -> Any:
        if not self._wait_replicas:
            return self._publish(keys=keys, args=args)
        # WAIT counts for its own connection alone, and also when the event was stored by an earlier try.
        with self._client.pipeline(transaction=False) as pipe:
            self._publish(keys=keys, args=args, client=pipe)
            pipe.wait(self._wait_replicas, _ms(self._timeout * WAIT_SHARE))
            answer, replicas = pipe.execute()
        if replicas < self._wait_replicas:
            raise BrokerUnavailable(f"Redis: {replicas} of {self._wait_replicas} replicas have the event")
        return answer

    def history(self, after: Mapping[str, int], inbox: str) -> History:
        keys = [*self._state_keys(), *map(self._list_key, after)]
        args: list[Any] = [self._fresh_epoch(), self._inbox(inbox), self._pubsub.publish]
        for name, position in after.items():
            args += [name, position]
        epoch, last, horizon, forks, *rest = self._call(lambda: self._history(keys=keys, args=args))
        answers = zip(after.items(), rest[::2], rest[1::2], strict=True)
        epoch, lineage = epoch.decode(), _lineage(forks)
        channels = {
            name: channel_history(at, _entries(name, epoch, lineage, stored), int(head), int(horizon))
            for (name, at), head, stored in answers
        }
        return History(epoch, int(last), channels, lineage)

    def claim(self, name: str, seconds: float) -> bool:
        key, mine = f"{self._base}claim:{name}", secrets.token_bytes(8)

        def take() -> bool:
            # A second try, after a lost reply, must find what the first one took to be its own.
            return bool(self._client.set(key, mine, px=_ms(seconds), nx=True)) or (
                self._client.get(key) == mine
            )

        return self._call(take)

    def inspect(self) -> dict[str, Any]:
        facts: dict[str, Any] = dict(self._call(self._client.info))
        seconds, micros = self._call(self._client.time)
        facts["time"] = seconds + micros / 1e6
        for name in INSPECTED:
            with contextlib.suppress(BrokerUnavailable):  # renamed or forbidden, where Redis is a service
                facts.update(_texts(self._call(partial(self._client.config_get, name))))
        return facts

    def heads(self, most: int) -> dict[str, int]:
        _, heads = self._state_keys()
        newest: Any = self._call(partial(self._client.zrevrange, heads, 0, most, withscores=True))
        return {_text(name): int(head) for name, head in newest if name}  # one has no name, and no end

    def link(self, inbox: str) -> Link:
        pool = self._client.connection_pool
        with _translated():
            # Not the pool's: that keeps all that it ever made, and closes them while others read.
            connection: Any = pool.connection_class(**pool.connection_kwargs)
            connection.connect()
        link = RedisLink(connection, self._live, self._inbox(inbox), self._pubsub)
        link.open()
        return link

    def wake(self, inbox: str) -> None:
        with contextlib.suppress(RedisError, OSError):
            self._client.execute_command(self._pubsub.publish, self._inbox(inbox), b"")

    def close(self) -> None:
        self._client.close()
        self._client.connection_pool.disconnect()

    def _fresh_epoch(self) -> str:
        """What an epoch is called that begins now. On one of several shards it tells which of how many."""
        if self._shard is None:
            return secrets.token_hex(4)
        return f"{self._shard.number}{self._shard.of}" + "".join(
            secrets.choice(EPOCH_DIGITS) for _ in range(4)
        )

    def _state_keys(self) -> tuple[str, str]:
        return self._base + "state", self._base + "heads"

    def _list_key(self, channel: str) -> str:
        return f"{self._base}list:{channel}"

    def _inbox(self, inbox: str) -> str:
        return f"{self._base}inbox:{inbox}"

    def _call(self, command: Callable[[], T]) -> T:
        """Runs an idempotent command, again when a connection failed and time is left."""
        last_start = time.monotonic() + self._timeout / TRIES
        for tries_left in reversed(range(TRIES)):
            try:
                with _translated():
                    return command()
            except BrokerUnavailable as error:
                final = isinstance(error.__cause__, AuthenticationError)
                if final or not tries_left or time.monotonic() > last_start:
                    raise
        raise AssertionError("the last try returns or raises")


class RedisLink(Link):
    """A subscribed connection.

    redis-py's own PubSub reconnects in silence and loses what came meanwhile; a bare connection raises.
    """

    def __init__(self, connection: Any, live: str, inbox: str, pubsub: PubSub = PLAIN) -> None:
        self._pubsub = pubsub
        self._connection = connection
        self._live = live
        self._strip = len(live)
        self._inbox = inbox.encode()

    def open(self) -> None:
        """Listens to the link's own inbox. Raises BrokerUnavailable."""
        self._send(self._pubsub.subscribe, self._inbox)

    def subscribe(self, channels: Sequence[str]) -> None:
        self._send(self._pubsub.subscribe, *(self._live + name for name in channels))

    def unsubscribe(self, channels: Sequence[str]) -> None:
        self._send(self._pubsub.unsubscribe, *(self._live + name for name in channels))

    def _send(self, *command: str | bytes) -> None:
        with _translated():
            self._connection.send_command(*command, check_health=False)

    def read(self, timeout: float) -> list[LinkMessage]:
        signals: list[LinkMessage] = []
        with _translated():
            ready = self._connection.can_read(timeout)
            while ready:
                # Its beginning is here already; for the rest the connection's own timeout counts.
                reply = self._connection.read_response()
                signal = self._signal(reply)
                if signal is not None:
                    signals.append(signal)
                ready = self._connection.can_read(0)
        return signals

    def _signal(self, reply: list[Any]) -> LinkMessage | None:
        kind, name, content = reply
        if kind == self._pubsub.message:
            if name != self._inbox:
                return LiveEvent(name.decode()[self._strip :], content)
            if content:
                epoch, last = content.split(b" ")
                return Echo(epoch.decode(), int(last))
        elif kind == self._pubsub.subscribed and name != self._inbox:
            return Subscribed(name.decode()[self._strip :])
        elif kind == self._pubsub.unsubscribed and name == self._inbox:
            raise BrokerUnavailable("Redis: the slot moved to another node")
        return None

    def close(self) -> None:
        with contextlib.suppress(RedisError, OSError):
            self._connection.disconnect()


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """The one seam where redis-py's errors become ours."""
    try:
        yield
    except (RedisError, OSError) as error:
        raise BrokerUnavailable(f"Redis: {type(error).__name__}: {error}") from error


def _lineage(forks: bytes) -> Lineage:
    """The lineage as the state keeps it; what a foreign hand wrote there is left out."""
    return {epoch.decode(): int(last) for epoch, last in re.findall(rb"([a-z0-9]+):([0-9]{1,16})\b", forks)}


def _entries(channel: str, epoch: str, lineage: Lineage, stored: Sequence[bytes]) -> list[Entry]:
    """The entries of this epoch and of those it goes on from. What a foreign hand put between them is left
    out: the `prev` chain tells whether something of ours is missing there."""
    entries = []
    for each in stored:
        with contextlib.suppress(ValueError):
            entry = Entry.parse(each, channel)
            if belongs(Cursor(entry.epoch, entry.id), epoch, lineage):
                entries.append(entry)
    return entries


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
