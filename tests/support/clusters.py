"""Starts a cluster of three primaries and three replicas: real processes on the local host."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis
from redis.crc import key_slot

from .deadline import eventually
from .processes import free_port
from .servers import Server

SLOTS = 16384


class Cluster:
    """The nodes of a cluster, and which node owns which slot."""

    def __init__(self, nodes: list[Server]) -> None:
        self.nodes = nodes
        self._clients = {node: node.client(decode_responses=True) for node in nodes}
        self.ids = {node: self.ask(node, "MYID") for node in nodes}

    @property
    def url(self) -> str:
        """A broker URL. Nothing listens at its first address, and it leaves out two nodes."""
        return "redis+cluster://127.0.0.1:1," + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes[:4])

    def ask(self, node: Server, *command: object) -> Any:
        """Sends a CLUSTER command to one node; returns the answer unchanged."""
        return self._clients[node].execute_command("CLUSTER", *command)

    def client(self, node: Server) -> Any:
        return self._clients[node]

    def slot(self, key: str) -> int:
        return key_slot(key.encode())

    def owner(self, slot: int, among: list[Server] | None = None) -> Server:
        """The owner of the slot. Waits until all nodes, or all nodes in `among`, name the same owner."""

        def agreed() -> int:
            ports = {self._owner(node, slot) for node in among or self.nodes}
            return ports.pop() if len(ports) == 1 else 0

        port = eventually(agreed, 15)
        return next(node for node in self.nodes if node.port == port)

    def _owner(self, node: Server, slot: int) -> int:
        ranges = self.ask(node, "SLOTS")
        return next((nodes[0][1] for first, last, *nodes in ranges if first <= slot <= last), 0)

    def primaries(self) -> set[Server]:
        ports = {nodes[0][1] for _, _, *nodes in self.ask(self.nodes[0], "SLOTS")}
        return {node for node in self.nodes if node.port in ports}

    def settled(self) -> bool:
        """Whether each node finds the cluster complete, and each replica has caught up with its primary."""
        for node in self.nodes:
            if "cluster_state:ok" not in self.ask(node, "INFO"):
                return False
            if len(self.ask(node, "NODES").splitlines()) != len(self.nodes):
                return False
        replicas = [self._clients[node].info("replication") for node in self.nodes[3:]]
        return all(info.get("master_link_status") == "up" for info in replicas)

    def move(self, slot: int, target: Server) -> None:
        """Moves a slot with its keys while clients keep working, as resharding tools do."""
        source = self.owner(slot)
        self.ask(target, "SETSLOT", slot, "IMPORTING", self.ids[source])
        self.ask(source, "SETSLOT", slot, "MIGRATING", self.ids[target])
        while keys := self.ask(source, "GETKEYSINSLOT", slot, 100):
            self._clients[source].migrate("127.0.0.1", target.port, keys, 0, 5000)
        for node in (target, source, *(self.primaries() - {source, target})):
            self.ask(node, "SETSLOT", slot, "NODE", self.ids[target])


@contextlib.contextmanager
def cluster(folder: Path, *, node_timeout: float = 2.0) -> Iterator[Cluster]:
    """Runs a cluster. A replica takes over after its primary was silent for `node_timeout` seconds."""
    buses = [free_port() for _ in range(6)]
    options = ["--save", "", "--cluster-enabled", "yes", "--repl-diskless-sync-delay", "0"]
    options += ["--cluster-node-timeout", str(round(node_timeout * 1000))]
    nodes = [
        Server(folder / f"node-{n}", *options, "--cluster-port", str(bus)) for n, bus in enumerate(buses)
    ]
    try:
        running = Cluster([node.start() for node in nodes])
        _join(running, buses)
        yield running
    finally:
        for node in nodes:
            node.close()


def _join(cluster: Cluster, buses: list[int]) -> None:
    share = SLOTS // 3
    for n, node in enumerate(cluster.nodes):
        cluster.ask(node, "SET-CONFIG-EPOCH", n + 1)
        if n < 3:
            cluster.ask(node, "ADDSLOTSRANGE", n * share, (n + 1) * share - 1 if n < 2 else SLOTS - 1)
        if n:
            cluster.ask(node, "MEET", "127.0.0.1", cluster.nodes[0].port, buses[0])

    def replicate(node: Server, primary: Server) -> bool:
        try:
            return bool(cluster.ask(node, "REPLICATE", cluster.ids[primary]))
        except redis.ResponseError:  # it does not know the primary yet
            return False

    for primary, replica in zip(cluster.nodes[:3], cluster.nodes[3:], strict=True):
        eventually(lambda replica=replica, primary=primary: replicate(replica, primary), 15)  # type: ignore[misc]
    eventually(cluster.settled, 30)
