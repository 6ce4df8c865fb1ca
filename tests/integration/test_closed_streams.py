"""What a worker keeps of streams that have closed."""

from __future__ import annotations

import gc

from flask_sse_push.hub.stream import Stream
from tests.support.deadline import eventually

from .conftest import MakeApp
from .test_recheck import Site


def kept(site: Site) -> list[Stream]:
    """The objects of the newest stream of `site` that are still in memory."""
    gc.collect()
    objects = [found for found in gc.get_objects() if isinstance(found, Stream)]
    return [stream for stream in objects if stream.connection == site.opened["connection"]]


def test_a_closed_stream_does_not_stay_in_memory_until_its_next_check(make_app: MakeApp) -> None:
    site = Site(make_app, recheck=600, heartbeat=1)
    with site.stream("red") as stream:
        assert kept(site)
        del stream
    eventually(lambda: not kept(site), 5, every=0.2)
