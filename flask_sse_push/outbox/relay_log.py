"""What a relay says about itself: each change of its state once."""

from __future__ import annotations

import logging
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from ..errors import BrokerUnavailable

logger = logging.getLogger(__name__)


class RelayLog:
    """Tells that a relay works, waits for another relay, or fails.

    :param name: the name of the outbox's table.
    :param tell: gets each text that is no error. The default is the log, with the level INFO.
    """

    def __init__(self, name: str, tell: Callable[[str], None] | None = None) -> None:
        self._name = name
        self._tell = tell or logger.info
        self._state = ""

    def has_lease(self) -> None:
        """Called when no other relay works. Says nothing if the relay failed: it may fail again."""
        if self._state in ("", "waits"):
            self._change("works", f"the relay of the outbox {self._name} works")

    def waits(self) -> None:
        """Called when another relay works."""
        self._change("waits", f"another relay of the outbox {self._name} works; this one waits to take over")

    def succeeds(self) -> None:
        """Called when the relay has published events, or has waited for a commit without an error."""
        if self._state == "fails":
            self._change("works", f"the relay of the outbox {self._name} publishes again")

    def fails(self, error: Exception) -> None:
        """Called when the relay cannot publish. Logs the first of several errors."""
        if self._state == "fails":
            return
        self._state = "fails"
        expected = isinstance(error, (BrokerUnavailable, SQLAlchemyError, OSError))
        logger.log(
            logging.WARNING if expected else logging.ERROR,
            "the relay of the outbox %s cannot publish, and tries again: %s",
            self._name, getattr(error, "orig", error), exc_info=not expected,
            extra={"event": "outbox_failing"},
        )  # fmt: skip

    def _change(self, state: str, text: str) -> None:
        if state != self._state:
            self._state = state
            self._tell(text)
