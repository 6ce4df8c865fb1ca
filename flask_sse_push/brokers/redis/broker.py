"""The broker on Redis or Valkey: lists hold the history, and one script stores and announces events.

Keys, all under one hash tag: `{prefix:0}:state`, `{prefix:0}:heads`, `{prefix:0}:list:<channel>`,
`{prefix:0}:once:<idempotency id>`, `{prefix:0}:claim:<name>`. Pub/sub names: `{prefix:0}:live:<channel>`,
`{prefix:0}:inbox:<worker>`. Each script in `lua/` begins with a description of its keys.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from redis import BlockingConnectionPool
from redis.commands.core import Script
from redis.exceptions import ResponseError
from redis.sentinel import SentinelManagedConnection

from ...config import ChannelPolicies
from ...errors import BrokerUnavailable
from ...protocol.channel import BROADCAST, is_channel
from ...protocol.cursor import MAX_ID, Cursor
from ...protocol.entry import Publication
from ..base import NO_INBOX, READ_TIMEOUT, UNBOUNDED, Broker, History, Link, Newest
from ..foreign import ForeignData
from ..group_commit import Request
from .arrivals import connect_link
from .client import (
    BrokerSettings,
    Call,
    Clients,
    call_within,
    is_wrong_type,
    milliseconds,
    pool_options,
    translated_errors,
)
from .counts import RedisCounts
from .declared import DeclaredPolicies, Run
from .link import PLAIN, PubSub, RedisLink
from .proof import Proofs, new_secret
from .publish_call import PublishReply, PublishScript
from .publishing import Publishing
from .read_reply import ReadReply
from .refusals import WriteState
from .scripts import script

EPOCH_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
#: At most how many bytes of entries one search for the newest events looks at: about 2 ms of Redis' time.
LOOK_ROOM = 500_000
#: Settings of Redis that `flask sse doctor` checks.
INSPECTED = "maxmemory", "maxmemory-policy", "client-output-buffer-limit", "appendonly", "save", "maxclients"


class ShardNumber(NamedTuple):
    """The number of a shard, from 0, and how many shards there are."""

    number: int
    of: int


def hash_tag(prefix: str, shard: int) -> str:
    """Returns the prefix of all keys of a shard. A cluster keeps keys with the same `{…}` in one slot."""
    return "{" + f"{prefix}:{shard}" + "}"


def connect(url: str, settings: BrokerSettings) -> RedisBroker:
    """Returns the broker at a redis://, rediss:// or unix:// URL. Opens no connection yet.

    :raises ValueError: if redis-py cannot read the URL.
    """
    make_pool = partial(BlockingConnectionPool.from_url, url, **pool_options(settings.timeout))
    return RedisBroker(Clients(make_pool, settings.setting), *settings.of_broker)


class RedisBroker(Broker):
    """The broker on one Redis server. Calls share a pool of connections; each link has its own connection.

    :param timeout: how long one call may take, in seconds.
    :param policies: say how much of each channel's history is kept.
    :param shard: which of several shards this broker is; None if there is only one shard.
    :param declared: compares the policies with those of the app. All shards share this object.
    """

    def __init__(
        self,
        clients: Clients,
        policies: ChannelPolicies,
        prefix: str,
        timeout: float,
        wait_replicas: int = 0,
        pubsub: PubSub = PLAIN,
        shard: ShardNumber | None = None,
        declared: DeclaredPolicies | None = None,
    ) -> None:
        self._shard = shard
        self.pubsub = pubsub
        self._clients = clients
        self._policies = policies
        self._declared = declared or DeclaredPolicies(policies)
        self._timeout = timeout
        self._call: Call = partial(call_within, timeout, clients.setting)
        self.pool = clients.main.connection_pool
        self.base = hash_tag(prefix, shard.number if shard else 0) + ":"
        self._state_keys = self.base + "state", self.base + "heads"
        self._live = self.base + "live:"
        call = partial(PublishScript, self.base, self._policies, pubsub.publish, self._fresh, timeout)
        self._publishing = Publishing(clients, call, self._note_reply, timeout, wait_replicas)
        self._history = clients.main.register_script(script("state", "lists", "history"))
        self._page = clients.main.register_script(script("state", "lists", "page"))
        self._newest = clients.main.register_script(script("state", "lists", "newest"))
        self._foreign = ForeignData()
        self._proofs = Proofs()
        self._writes = WriteState()
        self.counts = RedisCounts(clients, self.base, self._call, self._foreign)

    def publish(self, publications: Sequence[Publication], once: str | None = None) -> list[Cursor]:
        if not publications:
            return []
        request = Request(publications, once)
        self._publishing.publish([request])
        return request.result()

    def publish_each(self, events: Sequence[tuple[Publication, str]]) -> None:
        requests = [Request([event], once) for event, once in events]
        if requests:
            self._publishing.publish(requests)
        for request in requests:
            request.result()

    def _note_reply(self, reply: PublishReply, run: Run) -> None:
        """Reports data of another program, and compares the channel policies with those in the state."""
        if reply.foreign:
            self._foreign.report_all(reply.foreign)
        if reply.differs:
            self._declared.compare(reply.differs, self._state_keys[0], run)
        elif reply.differs is not None:
            self._declared.are_same = True

    def expect_to_declare(self) -> None:
        self._declared.expect_to_declare()

    def declare(self) -> None:
        self._declared.declare(self._state_keys[0], self.run)

    def history(self, after: Mapping[str, int], inbox: str, room: int = UNBOUNDED) -> History:
        reply = self._read(self._history, after, inbox, room)
        return reply.history(after, self._found_foreign)

    def page(self, after: Mapping[str, int], inbox: str, room: int) -> History:
        reply = self._read(self._page, after, inbox, room)
        return reply.page(after, self._found_foreign)

    def _read(self, script: Script, after: Mapping[str, int], inbox: str, room: int) -> ReadReply:
        keys = [*self._state_keys, *map(self._list_key, after)]
        args: list[Any] = [self._fresh(), self._inbox(inbox), self.pubsub.publish, room]
        for name, position in after.items():
            args += [name, position]
        reply = ReadReply(self._call(lambda: script(keys=keys, args=args, client=self._clients.current)))
        self._proofs.note(reply.epoch, reply.secret)
        self._foreign.report_all(reply.foreign)
        self._note_refusal(reply.refusal)
        return reply

    def _found_foreign(self, channel: str, problem: str) -> None:
        self._foreign.report(self._list_key(channel), problem)

    def newest(self, channels: Sequence[str], count: int, before: int = MAX_ID) -> Newest:
        keys, args = [self._state_keys[0], *map(self._list_key, channels)], [count, before, LOOK_ROOM]
        low, *ids = self._call(lambda: self._newest(keys=keys, args=args, client=self._clients.current))
        return Newest(list(map(int, ids)), int(low))

    def _note_refusal(self, refusal: str) -> None:
        """Notes whether the server takes writes.

        :param refusal: the server's error message; "" if it takes writes.
        :raises BrokerUnavailable: if the server is a former primary. The next call asks who is primary.
        """
        if refusal.startswith("READONLY") and issubclass(
            self.pool.connection_class, SentinelManagedConnection
        ):
            self._clients.current.connection_pool.disconnect(inuse_connections=False)
            raise BrokerUnavailable("Redis: the server is no longer the primary")
        self._writes.note(refusal)

    def claim(self, name: str, seconds: float) -> bool:
        key, mine = f"{self.base}claim:{name}", secrets.token_bytes(8)

        def take() -> bool:
            # If the reply to the first try was lost, the second try finds the name claimed with the same
            # value.
            client = self._clients.current
            taken = client.set(key, mine, px=milliseconds(seconds), nx=True)
            return bool(taken) or self._value(key) == mine

        return bool(self._call(take))

    def _value(self, key: str) -> Any:
        """Returns the text of a key; None if the key has no text."""
        try:
            return self._clients.current.get(key)
        except ResponseError as error:
            if not is_wrong_type(error):
                raise
            self._foreign.report(key, str(error))
            return None

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
        # Other programs may have added names and scores that are not valid.
        return {name.decode(): int(head) for name, head in newest if _is_own(name) and 0 < head <= MAX_ID}

    def link(self, inbox: str) -> Link:
        if self._proofs.is_empty:
            self.history({}, NO_INBOX)
        pool = self._clients.main.connection_pool
        with translated_errors(self._clients.setting):
            timeout = min(pool.connection_kwargs["socket_timeout"], READ_TIMEOUT)
            connection = connect_link(pool, socket_timeout=timeout)
        names, setting = (self._live, self._inbox(inbox)), self._clients.setting
        link = RedisLink(*connection, *names, self._foreign, self._proofs, self.pubsub, setting)
        link.open()
        return link

    def wake(self, inbox: str) -> None:
        with contextlib.suppress(BrokerUnavailable):
            self.run(self.pubsub.publish, self._inbox(inbox), b"")

    def run(self, *command: Any) -> Any:
        """Returns the reply to one command of Redis, which must be safe to run twice. Blocks.

        :raises BrokerUnavailable: if the command fails, or the server does not answer in time.
        """
        return self._call(lambda: self._clients.current.execute_command(*command))

    def close(self) -> None:
        self._publishing.close()
        self._clients.close()

    def _fresh(self) -> str:
        """Returns a random name for a new epoch, and the secret of this epoch.

        With several shards, the name begins with the number of the shard and the number of shards.
        """
        if self._shard is None:
            return f"{secrets.token_hex(4)} {new_secret()}"
        digits = "".join(secrets.choice(EPOCH_DIGITS) for _ in range(4))
        return f"{self._shard.number}{self._shard.of}{digits} {new_secret()}"

    def _list_key(self, channel: str) -> str:
        return f"{self.base}list:{channel}"

    def _inbox(self, inbox: str) -> str:
        return f"{self.base}inbox:{inbox}"


def _is_own(name: bytes) -> bool:
    """Whether a name in heads is a channel. state.lua adds the name "", which is not."""
    text = name.decode("ascii", "replace")
    return text == BROADCAST or is_channel(text.removeprefix("!"))


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
