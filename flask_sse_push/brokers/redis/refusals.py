"""Says what to do when Redis refuses a command, and notes whether the server takes writes at present."""

from __future__ import annotations

import logging
import re

from redis.exceptions import AuthenticationError, ResponseError

logger = logging.getLogger(__name__)

#: What to do, by the code of the error with which Redis refuses a command.
ADVICE = {
    "READONLY": "the server is a replica: set SSE_PUSH_BROKER_URL to the primary, or use redis+sentinel://",
    "OOM": "the server has used up its `maxmemory`: raise it, or set `maxmemory-policy volatile-lru`",
    "NOREPLICAS": "too few replicas are connected: start them, or lower the server's `min-replicas-to-write`",
    "MISCONF": "the server cannot save its data to disk: look into its log, and free space on its disk",
    "NOPERM": "grant the Redis user the rights that docs/redis.md lists under 'Who may write'",
    "MASTERDOWN": "the server is a replica without a primary: set SSE_PUSH_BROKER_URL to the primary",
}
#: redis-py drops the code of some errors, and raises a class instead.
_CODES = {
    "ReadOnlyError": "READONLY",
    "OutOfMemoryError": "OOM",
    "NoPermissionError": "NOPERM",
    "MasterDownError": "MASTERDOWN",
}
_CODE = re.compile(rf"\b({'|'.join([*ADVICE, *_CODES])})\b")


def code_of(error: object) -> str:
    """Returns the code with which Redis refused a command, such as `OOM`; "" for other errors."""
    found = _CODE.search(f"{type(error).__name__}: {error}")
    return _CODES.get(found[1], found[1]) if found else ""


def advice(error: object, setting: str = "") -> str:
    """Returns what to do about an error of Redis, in parentheses; "" if there is no advice.

    :param setting: the key of the setting with the broker's URL, and the URL without its secrets.
    """
    code = code_of(error)
    if code or not setting:
        return f" ({ADVICE[code]})" if code else ""
    what = "correct user and password in" if isinstance(error, AuthenticationError) else "check"
    return f" ({what} {setting}: run `flask sse doctor`)"


def is_refusal(error: object) -> bool:
    """Whether Redis refused a command for a reason that a second try would not change."""
    return code_of(error) != ""


def is_damage(error: object) -> bool:
    """Whether a command failed because of what its key contains."""
    return isinstance(error, ResponseError) and not is_refusal(error)


class WriteState:
    """Logs when the server begins to refuse writes, and when it takes writes again."""

    def __init__(self) -> None:
        self._refusal = ""

    def note(self, refusal: str) -> None:
        """Notes the outcome of a write.

        :param refusal: the server's error message; "" if the write succeeded.
        """
        if bool(refusal) == bool(self._refusal):
            return
        self._refusal = refusal
        if refusal:
            text = "the broker takes no writes now; streams go on, but publish raises BrokerUnavailable: %s%s"
            extra = {"event": "broker_read_only", "why": refusal}
            logger.warning(text, refusal, advice(refusal), extra=extra)
        else:
            logger.warning("the broker takes writes again", extra={"event": "broker_writable"})
