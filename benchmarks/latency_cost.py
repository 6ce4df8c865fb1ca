"""What does it cost a worker to measure the latency of its events? `python -m benchmarks.latency_cost`.

A worker measures at most one event in each `hub.latency.INTERVAL`. This command measures, with the real parts
in one process, the processor time of

- **a measured event**: picking it, noting its time, and adding the time to the Prometheus histogram, which
  lies in a file that all workers share;
- **a round of the dispatcher** in which no event is measured: one look at the clock.

It prints both, and the share of one core that they take on a worker that delivers `ROUNDS` times a second.
The exit code is 1 if that share is above `GOAL`.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable

#: How often a busy worker delivers in a second.
ROUNDS = 2000
#: At most which share of a core measuring should take.
GOAL = 0.005
#: How often each step is measured. The quickest measurement counts, because others of the machine disturb.
REPEAT, CALLS = 9, 2000


def seconds_each(step: Callable[[], object]) -> float:
    """Returns the processor time of one call of `step`, in seconds."""
    best = float("inf")
    for _ in range(REPEAT):
        began = time.process_time()
        for _ in range(CALLS):
            step()
        best = min(best, time.process_time() - began)
    return best / CALLS


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        return measure()


def measure() -> int:
    """Measures and prints the costs. Returns the exit code."""
    from flask_sse_push.brokers.memory import MemoryBroker
    from flask_sse_push.config import Settings
    from flask_sse_push.history.shards import Shards
    from flask_sse_push.hub.counters import Counters, Gauges
    from flask_sse_push.hub.group import Delivery
    from flask_sse_push.hub.latency import INTERVAL, Latency
    from flask_sse_push.monitoring.prometheus import Exporter
    from flask_sse_push.protocol.entry import Entry
    from flask_sse_push.transports.generator import GeneratorStream

    settings = Settings()
    shards = Shards([MemoryBroker(settings.policies)], "inbox", lambda item: None, settings)
    now = time.monotonic()
    shards.all[0].history_cache.broker_clock.note(time.time_ns() // 1000, now, now)
    counters = Counters()
    counters.want_times()
    latency, exporter = Latency(shards, counters), Exporter(counters, Gauges)
    entry = Entry("e", time.time_ns() // 1000, 0, b"data: x\n\n")
    recipients = GeneratorStream.recipients(
        [GeneratorStream(str(number), None, ("a",), settings) for number in range(1000)]
    )
    delivery = Delivery(GeneratorStream, recipients, entry.frame, (), b"", [entry])

    def measured() -> None:
        sample = latency.pick([delivery])
        assert sample is not None
        assert sample.is_written(delivery, 1000)
        exporter.export()

    def exported() -> None:
        exporter.export()

    def looked() -> None:
        sample = None if time.monotonic() < counters.measure_at else latency.pick([delivery])
        if sample is not None and sample.is_written(delivery, 1000):
            raise AssertionError

    sample = seconds_each(measured) - seconds_each(exported)
    counters.measure_at = float("inf")
    look = seconds_each(looked) - seconds_each(lambda: None)
    share = sample / INTERVAL + look * ROUNDS
    print(f"a measured event                {sample * 1e6:8.2f} µs, {1 / INTERVAL:.0f} in a second")
    print(f"a round without a measured event{look * 1e6:8.3f} µs, {ROUNDS} in a second")
    print(f"share of a core                 {share:8.3%}, goal: at most {GOAL:.1%}")
    return int(share > GOAL)


if __name__ == "__main__":
    sys.exit(main())
