"""The exceptions of this package, and the numbered codes that clients see.

SSEPushError
├── ConfigError         a setting has a wrong value
│   ├── UnknownSetting  no setting has this name
│   ├── WrongChannelPolicy  a policy in SSE_PUSH_CHANNELS is wrong
│   └── MissingExtra    a part of this package needs an extra that is not installed
├── InvalidEvent        an event, a channel name or an argument has a wrong value
│   └── MessageTooLarge an event is bigger than SSE_PUSH_MAX_MESSAGE
├── InvalidPayload      a compressed payload is broken or too big
├── BrokerUnavailable   the broker did not reply in time
└── Refused             a request gets an HTTP error instead of a stream
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any

#: At most how many mistakes one message tells.
MAX_TOLD = 10


class SSEPushError(Exception):
    """Base of all exceptions that this package raises."""


class ConfigError(SSEPushError):
    """A setting has a wrong value.

    `key` is the name of the setting, `value` is the wrong value, and `expected` describes the valid values.
    If several settings are wrong, these are of the first one; the message tells of each, and `others` has the
    errors about the others.
    """

    others: tuple[ConfigError, ...] = ()

    def __init__(self, key: str, value: object, expected: str) -> None:
        super().__init__(f"{key} is {shown(value)}, but must be {expected}")
        self.key = key
        self.value = value
        self.expected = expected

    def __str__(self) -> str:
        own = super().__str__()
        if not self.others:
            return own
        lines = [own, *map(str, self.others[: MAX_TOLD - 1])]
        more = len(self.others) + 1 - len(lines)
        return "\n- ".join(
            [f"{len(self.others) + 1} mistakes in the settings:", *lines, *[f"{more} more"] * bool(more)]
        )

    @classmethod
    def raise_all(cls, errors: Sequence[ConfigError]) -> None:
        """Raises the first of the errors, whose message then tells of all. Does nothing if there are none."""
        found = [error for each in errors for error in (each, *each.others)]
        for each in errors:
            each.others = ()
        if found:
            found[0].others = tuple(found[1:])
            raise found[0]


class UnknownSetting(ConfigError):
    """No setting has the name `key`; the message gives the most similar name. `expected` lists all names."""

    def __init__(
        self, key: str, value: object, known: Sequence[str], similar: Sequence[str], source: str = ""
    ) -> None:
        super().__init__(key, value, "one of the known keys: " + ", ".join(known))
        hint = f"did you mean {similar[0]}? " if similar else ""
        self.args = (f"there is no setting {key}{source}; {hint}docs/settings.md lists all settings",)


class WrongChannelPolicy(ConfigError):
    """A channel policy in the setting `key` is wrong.

    `pattern` is the channel pattern. `name` is the key of the policy that is unknown, or whose value is
    wrong; None if the policy is no mapping at all, or if the pattern itself is wrong. `value` is then the
    policy or the pattern.
    """

    def __init__(self, key: str, pattern: object, name: object, value: object, expected: str) -> None:
        super().__init__(key, value, expected)
        self.pattern = pattern
        self.name = name
        where = f"{key}: the policy of {shown(pattern)}"
        if name is None and value is pattern:
            self.args = (f"{key}: the pattern {shown(pattern)} must be {expected}",)
        elif name is None:
            self.args = (f"{where} is {shown(value)}, but must be {expected}",)
        elif expected.startswith("one of "):
            self.args = (f"{where} has the key {shown(name)}, which must be {expected}",)
        else:
            self.args = (f"{where} has {shown(name)}: {shown(value)}, which must be {expected}",)


class MissingExtra(ConfigError):
    """The app uses a part of this package, named `key`, that needs an extra which is not installed."""

    def __init__(self, part: str, extra: str) -> None:
        super().__init__(part, None, f"used with the extra `{extra}`")
        self.args = (f"{part} needs the extra `{extra}`: pip install 'flask-sse-push[{extra}]'",)


class InvalidEvent(SSEPushError, ValueError):
    """A field of an event has a wrong value; nothing was published.

    `field` is the name of the field, and `problem` says what is wrong. If the field has several values, such
    as the names of channels, `at` is the place of the wrong one, counted from 0; else None.
    """

    def __init__(self, field: str, problem: str, at: int | None = None) -> None:
        super().__init__(f"{field}: {problem}" if at is None else f"{field}[{at}]: {problem}")
        self.field = field
        self.problem = problem
        self.at = at


class MessageTooLarge(InvalidEvent):
    """An event is bigger than SSE_PUSH_MAX_MESSAGE; nothing was published.

    `size` is the size of the event and `max_bytes` is the limit, both in bytes.
    """

    def __init__(self, size: int, max_bytes: int) -> None:
        super().__init__(
            "data",
            f"the event has {size} bytes, SSE_PUSH_MAX_MESSAGE allows {max_bytes}; "
            "publish a reference and let the page fetch the rest, or raise the limit",
        )
        self.size = size
        self.max_bytes = max_bytes


class InvalidPayload(SSEPushError, ValueError):
    """`payload.decompress` cannot unpack a compressed payload; `problem` says why."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"the compressed payload is not usable: {problem}")
        self.problem = problem


class BrokerUnavailable(SSEPushError):
    """The broker did not reply in time.

    If `publish` raises this error, the event is stored once or not at all.
    """


class ErrorCode(IntEnum):
    """The numbered codes in HTTP refusals and `sse.error` events.

    Codes 10xx concern the connection, 11xx the user's identity, 12xx rights and limits, 13xx the request.
    docs/errors.md has the same table.
    """

    meaning: str
    #: Whether the same request may succeed later.
    retry: bool

    def __new__(cls, value: int, meaning: str = "", retry: bool = False) -> ErrorCode:
        member = int.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        member.retry = retry
        return member

    CONNECTION_FAILED = 1001, "The stream could not be opened."
    CONNECTION_TIMEOUT = 1002, "The client read nothing for too long.", True
    CONNECTION_CLOSED = 1003, "The stream was closed on purpose."
    AUTH_REQUIRED = 1101, "Nobody is signed in, and not all of the channels are public."
    AUTH_FAILED = 1102, "The token or ticket is not valid, or was used before."
    AUTH_EXPIRED = 1103, "The token or ticket has expired: get a new one."
    PERMISSION_DENIED = 1201, "The user may not do this: listen to the channel, or come from this origin."
    RATE_LIMIT_EXCEEDED = 1202, "Too many streams, or too many attempts in a short time.", True
    SERVICE_UNAVAILABLE = (
        1203,
        "The worker is full or sends missed events to many clients, or the broker or the identity provider "
        "does not answer.",
        True,
    )
    INVALID_FORMAT = 1301, "A part of the request is not valid: a channel's name, a number or the body."
    DATA_NOT_FOUND = 1302, "The request names something that does not exist."
    DATA_CONFLICT = 1303, "The thing that the request names has changed in the meantime."


def shown(value: object, most: int = 200) -> str:
    """Returns `repr(value)` for an error message, with at most `most` characters. Never raises.

    Python raises a ValueError for the text of a number with more than 4,300 digits.
    """
    try:
        text = repr(value)
    except Exception as error:
        return f"a {type(value).__name__} whose repr raises {type(error).__name__}"
    return text if len(text) <= most else text[:most] + "…"


def error_body(code: ErrorCode, message: str, details: dict[str, Any] | None = None) -> dict[str, Any]:
    """Returns an error as a dict for JSON, for HTTP refusals and for `sse.error`.

    `timestamp` is the current time, in UTC (ISO 8601).
    """
    return {
        "code": int(code),
        "name": code.name,
        "message": message,
        "details": details or {},
        "retry": code.retry,
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }


class Refused(SSEPushError):
    """A request gets an HTTP error instead of a stream. A view that raises this error sends the HTTP error.

    `status` is the HTTP status. `code`, `message` and `details` are fields of the JSON body. `retry_after`
    says in how many seconds the client may try again. `for_log` is what only the log says. `told` says
    whether the log has the reason already. `user_id` is the id of the user who may not listen to a channel.
    """

    def __init__(
        self,
        status: int,
        code: ErrorCode,
        message: str,
        *,
        details: dict[str, Any] | None = None,
        retry_after: float | None = None,
        for_log: str = "",
        told: bool = False,
        user_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.details = details
        self.retry_after = retry_after
        self.for_log = for_log
        self.told = told
        self.user_id = user_id
