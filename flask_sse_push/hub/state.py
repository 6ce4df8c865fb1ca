"""The state that all parts of a hub share."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

from ..config import Settings
from ..history.shards import Shards
from .channel_changes import ChannelChanges
from .commands import Commands
from .counters import Counters
from .fanout import Fanout
from .listener import Listeners
from .stream import Stream


class HubState(NamedTuple):
    """The state of one hub, and the lock that guards it."""

    settings: Settings
    clock: Callable[[], float]  # returns monotonic seconds
    lock: threading.Lock  # guards all fields; no thread holds it during I/O
    streams: dict[str, Stream]  # the open streams, by the id of their connection
    shards: Shards
    fanout: Fanout
    channel_changes: ChannelChanges
    commands: Commands
    listeners: Listeners
    counters: Counters
