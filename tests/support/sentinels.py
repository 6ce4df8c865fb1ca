"""Starts a primary with replicas and three sentinels: real processes on the local host."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .deadline import eventually
from .servers import Server, servers

SERVICE = "shop"
PASSWORD = "p@ss/word"
SENTINEL_PASSWORD = "watch out"


class SentinelService:
    """The data servers and sentinels of a service, and which server is the primary."""

    def __init__(self, nodes: list[Server], sentinels: list[Server]) -> None:
        self.nodes = nodes
        self.sentinels = sentinels

    @property
    def url(self) -> str:
        """A broker URL. Nothing listens at its first address."""
        hosts = ",".join(["127.0.0.1:1", *(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)])
        return (
            f"redis+sentinel://:p%40ss%2Fword@{hosts}/{SERVICE}/1"
            f"?sentinel_password={SENTINEL_PASSWORD.replace(' ', '+')}"
        )

    def client(self, node: Server, **options: Any) -> Any:
        return node.client(password=PASSWORD, db=1, decode_responses=True, **options)

    def primary(self) -> Server:
        """The primary. Waits until all sentinels name the same server."""

        def agreed() -> int:
            ports = set()
            for sentinel in self.sentinels:
                client = sentinel.client(password=SENTINEL_PASSWORD)
                _, port = client.sentinel_get_master_addr_by_name(SERVICE)
                ports.add(int(port))
            return ports.pop() if len(ports) == 1 else 0

        port = eventually(agreed, 10)
        return next(node for node in self.nodes if node.port == port)

    def replicas(self) -> list[Server]:
        """All data servers that are not the primary."""
        primary = self.primary()
        return [node for node in self.nodes if node is not primary]

    def settled(self, count: int) -> bool:
        """Whether `count` replicas have caught up, and each sentinel knows them and the other sentinels."""
        info = self.client(self.primary()).info("replication")
        online = [info[f"slave{n}"]["state"] == "online" for n in range(info["connected_slaves"])]
        if online != [True] * count:
            return False
        for sentinel in self.sentinels:
            client = sentinel.client(password=SENTINEL_PASSWORD)
            state = client.sentinel_master(SERVICE)
            alive = [node for node in client.sentinel_slaves(SERVICE) if node["flags"] == "slave"]
            if state["num-other-sentinels"] != len(self.sentinels) - 1 or len(alive) != count:
                return False
            if state["is_sdown"] or state["is_odown"]:
                return False
        return True


@contextlib.contextmanager
def sentinel_service(
    folder: Path, *, replicas: int = 2, down_after: float = 2.0
) -> Iterator[SentinelService]:
    """Runs a service. A replica takes over after the primary was silent for `down_after` seconds."""
    secret = ("--requirepass", PASSWORD, "--masterauth", PASSWORD)
    options = ("--save", "", "--repl-diskless-sync-delay", "0", *secret)
    with servers(folder, 1 + replicas, *options) as nodes:
        for node in nodes[1:]:
            client = node.client(password=PASSWORD)
            client.replicaof("127.0.0.1", nodes[0].port)
        with _sentinels(folder, nodes[0], down_after) as sentinels:
            service = SentinelService(nodes, sentinels)
            eventually(lambda: service.settled(replicas), 30)
            yield service


@contextlib.contextmanager
def _sentinels(folder: Path, primary: Server, down_after: float) -> Iterator[list[Server]]:
    started = []
    for n in range(3):
        config = folder / f"sentinel-{n}.conf"
        config.write_text(
            f'requirepass "{SENTINEL_PASSWORD}"\n'
            f'sentinel sentinel-pass "{SENTINEL_PASSWORD}"\n'
            f"sentinel monitor {SERVICE} 127.0.0.1 {primary.port} 2\n"
            f"sentinel auth-pass {SERVICE} {PASSWORD}\n"
            f"sentinel down-after-milliseconds {SERVICE} {round(down_after * 1000)}\n"
            f"sentinel failover-timeout {SERVICE} 3000\n"
        )
        started.append(Server(folder / f"sentinel-{n}", config=config))
    try:
        yield [sentinel.start() for sentinel in started]
    finally:
        for sentinel in started:
            sentinel.close()
