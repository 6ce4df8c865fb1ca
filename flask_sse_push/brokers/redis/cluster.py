"""Redis or Valkey Cluster: all keys of a shard lie in one slot, on the node that owns the slot now.

`redis+cluster://user:password@node1:6379,node2,node3`; some of the nodes are enough, they name the others.
Live events use sharded pub/sub, which stays within the nodes of the slot.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from redis import Redis
from redis.crc import key_slot
from redis.exceptions import ConnectionError, RedisError

from ..base import Bounds, Broker
from ..sharded import ShardedBroker
from .broker import RedisBroker, ShardNumber, hash_tag
from .client import SHARE, url_options, without_retries
from .link import SHARDED
from .primary import Address, Primary, client_of, parse_hosts

DEFAULT_PORT = 6379
#: Share of a call's time after which the next node is tried. The next call begins with another node.
NODE_SHARE = SHARE / 2
#: Nodes remembered besides those in the URL.
MAX_NODES = 100


class Nodes(NamedTuple):
    """What a URL names: some of the nodes, and redis-py's options for all of them."""

    addresses: list[Address]
    options: dict[str, Any]


def parse(url: str) -> Nodes:
    """Reads a redis+cluster:// or rediss+cluster:// URL.

    :raises ValueError: when it is not one; a cluster has no databases but 0.
    """
    parts = urlsplit(url)
    user, at, hosts = parts.netloc.rpartition("@")
    options = url_options(f"{parts.scheme.partition('+')[0]}://{user}{at}node?{parts.query}")
    if options.pop("db", 0) or parts.path.strip("/") not in ("", "0"):
        raise ValueError("a cluster has the database 0 only")
    return Nodes(parse_hosts(hosts, DEFAULT_PORT), options)


def connect(
    url: str, *, shards: int, bounds: Bounds, prefix: str, timeout: float, wait_replicas: int = 0
) -> Broker:
    """The broker at a redis+cluster:// or rediss+cluster:// URL. Opens nothing yet.

    :param shards: how many hash tags the channels are spread over.
    :raises ValueError: for a URL that cannot be read.
    """
    nodes = parse(url)

    def on(shard: ShardNumber | None) -> RedisBroker:
        slot = key_slot(hash_tag(prefix, shard.number if shard else 0)[1:-1].encode())
        client = client_of(SlotOwner(slot, nodes, timeout), nodes.options, timeout)
        return RedisBroker(client, bounds, prefix, timeout, wait_replicas, SHARDED, shard)

    if shards == 1:
        return on(None)
    return ShardedBroker([on(ShardNumber(number, shards)) for number in range(shards)])


class SlotOwner(Primary):
    """The node that owns a slot; every node knows it."""

    def __init__(self, slot: int, nodes: Nodes, timeout: float) -> None:
        super().__init__(timeout)
        self._slot = slot
        self._options = {**without_retries(timeout * NODE_SHARE), **nodes.options}
        self._nodes = deque(nodes.addresses, MAX_NODES)

    def find(self) -> Address:
        causes = []
        for _ in range(len(self._nodes)):
            host, port = self._nodes[0]
            self._nodes.rotate(-1)  # this node may be cut off from the others: the next call tries another
            try:
                return self._ask(host, port)
            except RedisError as error:
                causes.append(error)
        raise ConnectionError(f"no node knows who owns slot {self._slot}") from causes[-1]

    def _ask(self, host: str, port: int) -> Address:
        """The owner according to the node at `host:port`; remembers the nodes that it names."""
        with Redis(host, port, **self._options) as node:
            ranges = node.execute_command("CLUSTER", "SLOTS")
        owner = None
        for first, last, *nodes in ranges:
            addresses = [(_text(name) or host, int(at)) for name, at, *_ in nodes]
            self._nodes.extend(each for each in addresses if each not in self._nodes)
            if first <= self._slot <= last:
                owner = addresses[0]
        if owner is None:
            raise ConnectionError(f"nobody owns slot {self._slot}, says {host}:{port}")
        return owner


def _text(name: bytes | str | None) -> str:
    return name.decode() if isinstance(name, bytes) else name or ""
