"""The memory broker of a process that only publishes, such as a Celery worker or a script: it warns once."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import PurePath

from ..config import SHARE_BROKER, ChannelPolicies
from ..protocol.cursor import Cursor
from ..protocol.entry import Publication
from .memory import MemoryBroker

logger = logging.getLogger(__name__)

#: Programs that run an app's code but serve no streams. `flask` is another one, unless it runs a server.
WORKERS = ("celery", "rq", "dramatiq", "huey_consumer", "huey_consumer.py")


class LoneBroker(MemoryBroker):
    """Warns at the first publish of the process if no stream can get the event."""

    _warned = False  # of all brokers of this process

    def publish(self, publications: Sequence[Publication], once: str | None = None) -> list[Cursor]:
        if not (LoneBroker._warned or self._links):
            LoneBroker._warned = True
            logger.warning(
                "an event was published, but no stream gets it: the broker is memory://, which serves one "
                "process, and this process has no streams; for all processes of the app, %s",
                SHARE_BROKER,
            )
        return super().publish(publications, once)


def serves_no_streams(arguments: Sequence[str]) -> bool:
    """Whether a process only runs an app's code: a worker of a task queue, or `flask` without `run`.

    :param arguments: the command line of the process, as in `sys.argv`.
    """
    path = PurePath(arguments[0])
    program = path.parent.name if path.name == "__main__.py" else path.name
    return program in WORKERS or (program == "flask" and "run" not in arguments)


def memory_broker(policies: ChannelPolicies, root: str | None) -> MemoryBroker:
    """Returns a memory broker. It warns if this process only publishes.

    :param root: the app's `root_path`; None if there is no app, so that no stream can use the broker.
    """
    is_lone = root is None or serves_no_streams(sys.argv or [""])
    return LoneBroker(policies) if is_lone else MemoryBroker(policies)
