"""The broker on Redis Cluster or Valkey Cluster.

A cluster divides all keys into slots, and each slot has one node as its owner. All keys of a shard lie in one
slot. The URL is `redis+cluster://user:password@node1:6379,node2,node3`. The URL need not name all nodes,
because each node knows all nodes. Live events use sharded pub/sub: only the nodes that store the slot get the
messages.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from redis import Redis
from redis.crc import key_slot
from redis.exceptions import ConnectionError, RedisError

from ..base import Broker
from ..sharded import ShardedBroker
from .broker import RedisBroker, ShardNumber, hash_tag
from .client import SHARE, BrokerSettings, url_options, without_retries
from .declared import DeclaredPolicies
from .link import SHARDED
from .primary import Address, Primary, clients_of, parse_hosts

DEFAULT_PORT = 6379
#: How long one node may take to name the owner of a slot, as a share of a call's time. Then the next node is
#: tried.
NODE_SHARE = SHARE / 2
#: At most this many nodes of a cluster are remembered.
MAX_NODES = 100


class Nodes(NamedTuple):
    """The content of a cluster's URL: the addresses of some nodes, and redis-py's options for all nodes."""

    addresses: list[Address]
    options: dict[str, Any]


def parse(url: str) -> Nodes:
    """Reads a redis+cluster:// or rediss+cluster:// URL.

    :raises ValueError: if the URL is not valid, or names a database other than 0, which clusters do not have.
    """
    parts = urlsplit(url)
    user, at, hosts = parts.netloc.rpartition("@")
    options = url_options(f"{parts.scheme.partition('+')[0]}://{user}{at}node?{parts.query}")
    if options.pop("db", 0) or parts.path.strip("/") not in ("", "0"):
        raise ValueError("a cluster has the database 0 only")
    return Nodes(parse_hosts(hosts, DEFAULT_PORT), options)


def connect(url: str, settings: BrokerSettings, shards: int) -> Broker:
    """Returns the broker at a redis+cluster:// or rediss+cluster:// URL. Opens no connection yet.

    :param shards: over how many shards the channels are spread.
    :raises ValueError: if the URL is not valid.
    """
    nodes, declared = parse(url), DeclaredPolicies(settings.policies)

    def on(shard: ShardNumber | None) -> RedisBroker:
        slot = key_slot(hash_tag(settings.prefix, shard.number if shard else 0)[1:-1].encode())
        clients = clients_of(lambda: SlotOwner(slot, nodes, settings.timeout), nodes.options, settings)
        return RedisBroker(clients, *settings.of_broker, SHARDED, shard, declared)

    if shards == 1:
        return on(None)
    return ShardedBroker([on(ShardNumber(number, shards)) for number in range(shards)])


class SlotOwner(Primary):
    """Finds the node that owns a slot, by asking any node of the cluster."""

    def __init__(self, slot: int, nodes: Nodes, timeout: float) -> None:
        super().__init__(timeout)
        self._slot = slot
        self._options = {**without_retries(timeout * NODE_SHARE), **nodes.options}
        self._nodes = deque(nodes.addresses, MAX_NODES)

    def find(self) -> Address:
        causes = []
        for _ in range(len(self._nodes)):
            host, port = self._nodes[0]
            self._nodes.rotate(-1)  # the next call asks another node: this node may be cut off
            try:
                return self._ask(host, port)
            except RedisError as error:
                causes.append(error)
        raise ConnectionError(f"no node knows who owns slot {self._slot}") from causes[-1]

    def _ask(self, host: str, port: int) -> Address:
        """Asks the node at `host:port` for the owner of the slot. Remembers all nodes that the node names."""
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
