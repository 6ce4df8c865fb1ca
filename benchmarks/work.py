"""What all measurements need: the CPU time of a server, and a server that has nothing left to do."""

from __future__ import annotations

import time
from typing import Any

from .client import Client
from .peers.base import Peer
from .process import cpu_seconds

Counters = dict[str, Any]


class CPU:
    """Measures the CPU time of a peer from now on."""

    def __init__(self, peer: Peer) -> None:
        self._pids = peer.pids()
        self._from = cpu_seconds(self._pids)
        self._since = time.monotonic()

    def seconds(self) -> float:
        return cpu_seconds(self._pids) - self._from

    def share(self) -> float:
        return self.seconds() / (time.monotonic() - self._since)


def settle(seconds: float = 0.5) -> None:
    """Waits until the server has finished late work, such as subscribing or noticing that a client has
    left."""
    time.sleep(seconds)


def warm_up(peer: Peer, channel: str = "bench") -> None:
    """Opens some streams, so that imports, the Redis reader and the caches do not count in the
    measurement."""
    with Client(peer, 50, path=peer.path(channel)) as client:
        client.finish()
    forget_departed(peer, channel)


def forget_departed(peer: Peer, channel: str = "bench") -> None:
    """Publishes some events, because a generator notices a departed client only at its second failing
    write."""
    if peer.publishes:
        peer.publish(4, 8, 200, channel=channel)
    settle()
