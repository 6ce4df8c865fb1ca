"""What the benchmarks measured, as it is packaged. `python -m benchmarks.measured` writes measured.json."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any, NamedTuple

FILE = "measured.json"


class Measured(NamedTuple):
    """Costs, each on one core of the machine named. CPU in µs, memory in kB."""

    date: str
    machine: str
    delivery_us: float  # one event to one of many streams on a channel
    generator_delivery_us: float  # the same by the generator transport
    own_event_us: float  # an event to the only stream on its channel, dispatching included
    connect_us: float  # a stream that begins
    stream_kb: float  # an open stream, in the worker
    generator_stream_kb: float
    kernel_kb: float  # an open connection, in the kernel
    worker_kb: float  # a worker without streams, with an app that does nothing
    redis_event_us: float  # Redis' CPU for a published event that nobody hears
    redis_worker_us: float  # and for each worker that hears it


def load() -> Measured:
    """The packaged figures."""
    found: dict[str, Any] = json.loads((resources.files(__package__) / FILE).read_text("utf-8"))
    figures = {name: float(each["value"]) for name, each in found["figures"].items()}
    return Measured(found["date"], found["machine"], **figures)
