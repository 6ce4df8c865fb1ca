"""Writes a log line for each refused request. The first line of each kind has the level WARNING."""

from __future__ import annotations

import logging
import re
import time
from typing import NamedTuple

from flask import Flask

from ..errors import Refused
from .log import MAX_TEXT, one_line

logger = logging.getLogger(__name__)

#: At most this many kinds of refusals are logged at level WARNING. Clients choose the names of channels, so
#: without a limit they could flood the log.
MAX_KINDS = 100


#: How many of the newest refusals a worker remembers for the admin page.
RECENT = 200


class RecentRefusal(NamedTuple):
    """A refused request, as the admin page shows it."""

    at: float  # Unix time
    status: int
    message: str
    channel: str | None  # the forbidden channel; None for other reasons
    user_id: str | None  # None if the user is not known
    address: str | None

    @classmethod
    def of(cls, refused: Refused, address: str | None) -> RecentRefusal:
        """Returns what the worker remembers of a refusal."""
        channel = (refused.details or {}).get("channel")
        return cls(time.time(), refused.status, refused.message[:500], channel, refused.user_id, address)


class RefusalLog:
    """The log lines for the refusals of one blueprint.

    The first refusal of a channel for a reason is a WARNING, and so is each refusal while the app is in debug
    mode. All others are INFO: a refusal is usually the client's mistake, or an ERROR has told the reason.
    """

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._logged: set[object] = set()

    def write(self, refused: Refused, address: str | None, path: str) -> None:
        """Logs a refusal.

        :param address: the address of the client; None if it is not known.
        :param path: the path of the request.
        """
        is_new = self._is_new(refused)  # also notes the kind of a refusal that another line has told
        is_shown = not refused.told and (is_new or self._app.debug)
        level = logging.WARNING if is_shown else logging.INFO
        if not logger.isEnabledFor(level):
            return
        code, why = int(refused.code), one_line(refused.message, 2 * MAX_TEXT)
        facts = {"code": code, "status": refused.status, "address": one_line(address), "path": one_line(path)}
        extra = {"event": "refused", **facts, "why": why}
        more = f" ({one_line(refused.for_log)})" if refused.for_log else ""
        logger.log(level, "refused with %d, code %d: %s%s", refused.status, code, why, more, extra=extra)

    def _is_new(self, refused: Refused) -> bool:
        """Whether no refusal of the same kind was logged before. At most `MAX_KINDS` kinds count as new.

        A kind is a code together with the channel, the origin of the page, or the beginning of the message.
        """
        details = refused.details or {}
        # The message quotes what the client sent. The text before the quote is the same for all clients.
        begin = re.split("['\"]", refused.message, maxsplit=1)[0]
        kind = refused.code, details.get("channel") or details.get("origin") or begin
        if kind in self._logged or len(self._logged) >= MAX_KINDS:
            return False
        self._logged.add(kind)
        if len(self._logged) == MAX_KINDS:
            logger.warning("%d kinds of refusals were logged; new kinds are only logged at INFO", MAX_KINDS)
        return True
