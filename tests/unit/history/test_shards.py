"""All shards of a worker."""

from __future__ import annotations

from flask_sse_push.brokers.memory import MemoryBroker
from flask_sse_push.config import Settings
from flask_sse_push.history.shards import Shards
from tests.support.memory import kept_by, sets_of_channels
from tests.support.policies import keeping


def test_many_sets_of_channels_take_at_most_three_megabytes() -> None:
    """1,024 placements of so many channels would take 12 MB."""
    shards = Shards([MemoryBroker(keeping(10, 60.0))], "w", lambda item: None, Settings())
    sets = sets_of_channels(1000)
    assert kept_by(lambda: [shards.placement(tuple(names.split(","))) and None for names in sets]) < 3e6
