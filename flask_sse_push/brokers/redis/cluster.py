"""Redis or Valkey Cluster: all keys of a shard in one slot, on whichever node owns it now.

`redis+cluster://user:password@node1:6379,node2,node3`; some of the nodes are enough, they name the others.
Live events go by sharded pub/sub, which stays within the nodes of the slot.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

from redis import BlockingConnectionPool, Redis
from redis.connection import parse_url
from redis.crc import key_slot
from redis.exceptions import ConnectionError, RedisError

from ..base import Bounds, Broker
from ..sharded import ShardedBroker
from .broker import MAX_CONNECTIONS, SHARDED, SHARE, RedisBroker, Shard, hash_tag, without_retries
from .primary import Address, Primary, PrimaryConnection, PrimarySSLConnection, parse_hosts

DEFAULT_PORT = 6379
#: A silent node is passed over after this share of a call's time; the next call begins with another.
NODE_SHARE = SHARE / 2
#: Nodes remembered beside those in the URL.
MAX_NODES = 100


class Nodes(NamedTuple):
    """What a URL says: some of the nodes, and redis-py's options for all of them."""

    addresses: list[Address]
    options: dict[str, Any]


def parse(url: str) -> Nodes:
    """What a redis+cluster:// or rediss+cluster:// URL says.

    :raises ValueError: when it is not one; a cluster has no databases but 0.
    """
    parts = urlsplit(url)
    user, at, hosts = parts.netloc.rpartition("@")
    options = parse_url(
        f"{parts.scheme.partition('+')[0]}://{user}{at}node?{urlencode(parse_qsl(parts.query))}"
    )
    if options.pop("db", 0) or parts.path.strip("/") not in ("", "0"):
        raise ValueError("a cluster has the database 0 only")
    del options["host"]
    options["ssl"] = options.pop("connection_class", None) is not None
    return Nodes(parse_hosts(hosts, DEFAULT_PORT), options)


def connect(
    url: str, *, shards: int, bounds: Bounds, prefix: str, timeout: float, wait_replicas: int = 0
) -> Broker:
    """The broker at a redis+cluster:// or rediss+cluster:// URL. Opens nothing yet.

    :param shards: how many hash tags the channels are spread over.
    :raises ValueError: for a URL that cannot be read.
    """
    nodes = parse(url)

    def on(shard: Shard | None) -> RedisBroker:
        client = _client(nodes, hash_tag(prefix, shard.number if shard else 0), timeout)
        return RedisBroker(client, bounds, prefix, timeout, wait_replicas, SHARDED, shard)

    if shards == 1:
        return on(None)
    return ShardedBroker([on(Shard(number, shards)) for number in range(shards)])


def _client(nodes: Nodes, hash_tag: str, timeout: float) -> Redis:
    """Connections to whichever node owns the slot of a hash tag."""
    options = dict(nodes.options)
    owner = Owner(
        key_slot(hash_tag[1:-1].encode()),
        nodes.addresses,
        {**without_retries(timeout * NODE_SHARE), **options},
        timeout,
    )
    tls = options.pop("ssl")
    pool = BlockingConnectionPool(
        max_connections=MAX_CONNECTIONS,
        timeout=timeout * SHARE,
        connection_class=PrimarySSLConnection if tls else PrimaryConnection,
        connection_pool=owner,
        **{**without_retries(timeout * SHARE), **options},
    )
    return Redis(connection_pool=pool)


class Owner(Primary):
    """The node that owns a slot, as any node knows it."""

    def __init__(self, slot: int, nodes: list[Address], options: dict[str, Any], timeout: float) -> None:
        super().__init__(timeout)
        self._slot = slot
        self._options = options
        self._nodes = deque(nodes, MAX_NODES)

    def find(self) -> Address:
        causes = []
        for _ in range(len(self._nodes)):
            host, port = self._nodes[0]
            self._nodes.rotate(-1)  # the next call asks another, should this one be cut off from the others
            try:
                return self._ask(host, port)
            except RedisError as error:
                causes.append(error)
        raise ConnectionError(f"no node knows who owns slot {self._slot}") from causes[-1]

    def _ask(self, host: str, port: int) -> Address:
        with Redis(host, port, **self._options) as node:
            ranges = node.execute_command("CLUSTER", "SLOTS")
        found = None
        for first, last, *nodes in ranges:
            addresses = [(_text(name) or host, int(at)) for name, at, *_ in nodes]
            self._nodes.extend(each for each in addresses if each not in self._nodes)
            if first <= self._slot <= last:
                found = addresses[0]
        if found is None:
            raise ConnectionError(f"nobody owns slot {self._slot}, says {host}:{port}")
        return found


def _text(name: bytes | str | None) -> str:
    return name.decode() if isinstance(name, bytes) else name or ""
