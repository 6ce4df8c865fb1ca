"""Measures this machine with psutil. The ticker runs this module; it does not need Flask."""

from __future__ import annotations

import time
from typing import Any

import psutil

from flask_sse_push import MessageAnnouncer

CHANNEL = "system"
#: Seconds between samples.
INTERVAL = 1.0
#: Seconds that the charts cover. Streams do not replay older samples.
WINDOW = 300.0


class Sampler:
    """Publishes a sample each time it is called. Percentages and rates cover the time since the previous
    call."""

    def __init__(self) -> None:
        self.number = 0
        psutil.cpu_percent(percpu=True)  # the first call returns no meaningful value
        self._traffic = _traffic()

    def __call__(self, announcer: MessageAnnouncer) -> None:
        """Measures and publishes.

        :raises BrokerUnavailable: This sample is lost; the next call publishes a new one.
        """
        announcer.publish(self.sample(), "sample", channel=CHANNEL, ttl=WINDOW)

    def sample(self) -> dict[str, Any]:
        """Returns `cores` and `cpu` in percent, `memory` in bytes and percent, `network` in bytes per
        second."""
        self.number += 1
        cores = psutil.cpu_percent(percpu=True)
        memory = psutil.virtual_memory()
        return {
            "number": self.number,
            "at_ms": round(time.time() * 1000),
            "cpu": round(sum(cores) / len(cores), 1),
            "cores": cores,
            "memory": {
                "percent": memory.percent,
                "used": memory.total - memory.available,
                "total": memory.total,
            },
            "network": self._network(),
        }

    def _network(self) -> dict[str, int]:
        before, self._traffic = self._traffic, _traffic()
        seconds = max(self._traffic[0] - before[0], 0.001)
        # The sums shrink when an interface goes away.
        received, sent = (max(0, now - then) for now, then in zip(self._traffic[1:], before[1:], strict=True))
        return {"received": round(received / seconds), "sent": round(sent / seconds)}


def _traffic() -> tuple[float, int, int]:
    """Returns the time, and the bytes that all interfaces have received and sent so far."""
    counters = psutil.net_io_counters(pernic=True).values()  # none on a machine without interfaces
    return time.monotonic(), sum(one.bytes_recv for one in counters), sum(one.bytes_sent for one in counters)
