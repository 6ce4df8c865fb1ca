"""From a load and measured costs to what it takes. Pure."""

from __future__ import annotations

from typing import NamedTuple

from ..config import Settings
from .measured import Measured

#: Share of a resource that a load may take: the rest is for bursts, pages, and machines that fail.
TARGET = 0.6
#: Bytes around an event's data: `id:`, `event:`, `data:` and the chunk's frame.
FRAME = 60
#: Bytes of the TCP/IP and Ethernet headers of a packet, and those that fit beside them.
HEADERS, SEGMENT = 66, 1448
#: Bytes of a publish around its data, to Redis; of a message from Redis to a worker.
REQUEST, MESSAGE = 300, 120
#: Bytes of a kept event beside its frame: in a worker's replica, in Redis.
ENTRY, KEPT = 350, 60
#: Files that a worker has open besides its streams.
SPARE_FILES = 100
#: Bits a second of the network that a machine is taken to have.
LINK = 1e9
#: Workers looked at; a load that needs more is none for one application.
MOST_WORKERS = 10_000


class Load(NamedTuple):
    """What is wanted."""

    streams: int
    rate: float  # events a second that each stream gets
    size: int  # bytes of an event's data
    groups: int = 1  # sets of channels, each with as many streams: 1 is one channel for all
    session: float = 600.0  # seconds that a stream stays open, on average
    transport: str = "hijack"


class Bound(NamedTuple):
    """A resource: `share` of it is taken, of 1.0."""

    name: str
    share: float
    advice: str


class Estimate(NamedTuple):
    """What the load takes. Sizes are bytes, traffic is bits a second, shares are of 1.0."""

    workers: int  # one a core
    enough: bool  # whether all shares are within the target
    worker_share: float  # of a worker's core
    worker_bytes: int  # resident memory of one
    kernel_bytes: int  # of all connections
    files: int  # that one worker must be allowed
    redis_events: float  # published a second
    redis_share: float  # of Redis' core
    redis_bytes: int  # of history
    redis_in: float
    redis_out: float
    network: float  # to all clients
    return_seconds: float  # of all cores, until all streams are back after a restart
    bounds: list[Bound]  # the one that is reached first comes first


def estimate(load: Load, measured: Measured, settings: Settings, cores: int | None = None) -> Estimate:
    """What `load` takes on `cores` cores for workers; on as few as are enough when None."""
    workers = _fewest(load, measured, settings) if cores is None else cores
    sums = _Sums(load, measured, settings, workers)
    bounds = sorted(sums.bounds(), key=lambda bound: -bound.share)
    return Estimate(
        workers=workers,
        enough=bounds[0].share <= TARGET,
        worker_share=sums.worker_share,
        worker_bytes=sums.worker_bytes,
        kernel_bytes=round(load.streams * measured.kernel_kb * 1000),
        files=sums.streams + SPARE_FILES,
        redis_events=sums.events,
        redis_share=sums.redis_share,
        redis_bytes=load.groups * settings.history_size * (load.size + FRAME + KEPT),
        redis_in=sums.events * (load.size + REQUEST) * 8,
        redis_out=sums.copies * (load.size + MESSAGE) * 8,
        network=sums.network,
        return_seconds=load.streams * measured.connect_us / 1e6 / workers,
        bounds=bounds,
    )


def _fewest(load: Load, measured: Measured, settings: Settings) -> int:
    """The fewest workers that have room; where more do not help, the fewest that do as well."""
    low, high = 1, MOST_WORKERS
    while low < high:
        middle = (low + high) // 2
        sums = _Sums(load, measured, settings, middle)
        if max(sums.worker_share, sums.places) <= TARGET:
            high = middle
        else:
            low = middle + 1
    return low


class _Sums:
    """The load spread over so many workers."""

    def __init__(self, load: Load, measured: Measured, settings: Settings, workers: int) -> None:
        self._load, self._measured, self._settings = load, measured, settings
        self.streams = -(-load.streams // workers)  # of one worker
        self.places = self.streams / settings.max_streams
        self.events = load.groups * load.rate
        # A group of few streams is in few workers, and the others do not hear of it.
        self._homes = min(workers, max(1.0, load.streams / load.groups))
        self.copies = self.events * self._homes
        # In silence there are heartbeats.
        deliveries = load.streams * max(load.rate, 1 / settings.heartbeat)
        self.worker_share = self._busy(deliveries) / workers
        packets = -(-(load.size + FRAME) // SEGMENT)
        self.network = deliveries * (load.size + FRAME + packets * HEADERS) * 8
        micros = self.events * measured.redis_event_us + self.copies * measured.redis_worker_us
        self.redis_share = micros / 1e6
        self.worker_bytes = self._memory(workers)

    def _busy(self, deliveries: float) -> float:
        """Cores that all workers together keep busy."""
        load, measured = self._load, self._measured
        hijack = load.transport == "hijack"
        delivery = measured.delivery_us if hijack else measured.generator_delivery_us
        dispatch = max(0.0, measured.own_event_us - measured.delivery_us)
        connects = load.streams / load.session
        return (deliveries * delivery + self.copies * dispatch + connects * measured.connect_us) / 1e6

    def _memory(self, workers: int) -> int:
        load, measured, settings = self._load, self._measured, self._settings
        stream = measured.stream_kb if load.transport == "hijack" else measured.generator_stream_kb
        kept = min(settings.history_size * (load.size + FRAME + ENTRY), settings.replica_bytes)
        channels = load.groups * self._homes / workers
        return round((measured.worker_kb + self.streams * stream) * 1000 + channels * kept)

    def bounds(self) -> list[Bound]:
        """All resources that can run out."""
        return [
            Bound("the workers' cores", self.worker_share, "more cores, on as many machines as you like"),
            Bound(
                "Redis' core", self.redis_share, "fewer events: gather several into one, or a Redis per app"
            ),
            Bound(
                "the network to the clients, of 1 Gbit/s",
                self.network / LINK,
                "several machines, smaller events, or SSE_PUSH_HTTP_COMPRESSION",
            ),
            Bound("places for streams in a worker", self.places, "more workers, or SSE_PUSH_MAX_STREAMS"),
        ]


def assumptions(load: Load, measured: Measured, settings: Settings) -> list[str]:
    """What the estimate takes for granted, in sentences."""
    return [
        f"cores as fast as {measured.machine}, measured on {measured.date}; one worker a core, kept below "
        f"{TARGET:.0%} of it",
        f"streams by {load.transport}, spread evenly over the workers, open for {load.session:g} s each",
        "events of some hundred bytes, one packet each and not gathered: bursts cost less, events of many "
        "kilobytes more than this",
        f"each of {load.groups} groups has a channel of its own and gets {load.rate:g} events/s",
        f"Redis keeps SSE_PUSH_HISTORY_SIZE = {settings.history_size} events of each channel, and a worker "
        "the same of those it has streams on; memory is counted with all of them full",
        "your app's own pages, TLS, proxies and slow clients' buffers are not in it",
    ]
