"""Reports data in the broker that another program has written, or that is damaged.

All data in the broker are input from outside: anyone who may write to the server can change them. Code that
finds such data ignores them and goes on. The log names each key only once, because the same data may be read
again at each event.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Sequence

from ..protocol.printable import printable

logger = logging.getLogger(__name__)

#: At most how many reported keys are remembered.
MAX_REPORTED = 1000
#: After this many seconds, a key that still has data of another program is reported again.
AGAIN = 3600.0


class ForeignData:
    """Remembers which keys were reported. Any thread may call `report`."""

    def __init__(self) -> None:
        self._reported: OrderedDict[str, float] = OrderedDict()  # by key: monotonic time of the report

    def report(self, key: str | bytes, problem: str | bytes) -> bool:
        """Logs an ERROR about a key, unless the key was reported in the last AGAIN seconds.

        :returns: whether the error was logged.
        """
        name, now = _shown(key), time.monotonic()
        if now - self._reported.get(name, -AGAIN) < AGAIN:
            return False
        self._reported[name] = now
        self._reported.move_to_end(name)
        if len(self._reported) > MAX_REPORTED:
            self._reported.popitem(last=False)
        logger.error(
            "%s was not written by flask_sse_push, or is damaged: %s. This data is ignored; clients that may "
            "need it get sse.reset. Everything else goes on. See docs/redis.md, 'Who may write'.",
            name,
            _shown(problem),
            extra={"event": "foreign_data", "key": name},
        )
        return True

    def report_all(self, found: Sequence[bytes]) -> None:
        """Reports what a script found: a list in which each key is followed by its problem."""
        for key, problem in zip(found[::2], found[1::2], strict=True):
            self.report(key, problem)


def _shown(text: str | bytes) -> str:
    """Returns at most 300 characters of `text` for the log."""
    return printable(
        text[:300].decode("utf-8", "backslashreplace") if isinstance(text, bytes) else text[:300]
    )
