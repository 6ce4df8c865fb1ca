"""The error tree and the numbered codes.

SSEPushError
├── ConfigError         a setting is wrong: names key, value and what was expected
├── InvalidEvent        an event, channel or option that cannot go on the wire
│   └── MessageTooLarge an event over SSE_PUSH_MAX_MESSAGE
├── InvalidPayload      a compressed payload that is broken or too big
├── BrokerUnavailable   Redis did not answer in time
└── Refused             a stream was not granted: becomes the HTTP answer
"""

from __future__ import annotations

from datetime import datetime, timezone
from enum import IntEnum
from typing import Any


class SSEPushError(Exception):
    """Base of everything this package raises on purpose."""


class ConfigError(SSEPushError):
    """A setting has a value that cannot work: `key` names it, `value` is what it has, `expected` what it
    needs."""

    def __init__(self, key: str, value: object, expected: str) -> None:
        super().__init__(f"{key} is {value!r}, but must be {expected}")
        self.key = key
        self.value = value
        self.expected = expected


class InvalidEvent(SSEPushError, ValueError):
    """A field of an event is outside its grammar; nothing was published. `field` names it, `problem` says
    why."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class MessageTooLarge(InvalidEvent):
    """An event is bigger than SSE_PUSH_MAX_MESSAGE; nothing was published. `size` and `max_bytes` are
    bytes."""

    def __init__(self, size: int, max_bytes: int) -> None:
        super().__init__(
            "data",
            f"the event has {size} bytes, SSE_PUSH_MAX_MESSAGE allows {max_bytes}; "
            "publish a reference and let the page fetch the rest, or raise the limit",
        )
        self.size = size
        self.max_bytes = max_bytes


class InvalidPayload(SSEPushError, ValueError):
    """An envelope that `payload.decompress` does not unpack."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"the compressed payload is not usable: {problem}")
        self.problem = problem


class BrokerUnavailable(SSEPushError):
    """The broker did not answer in time. A publish that raised this is stored zero or one times."""


class ErrorCode(IntEnum):
    """The numbered codes used in HTTP refusals and in `sse.error` events: 10xx the connection, 11xx who asks,
    12xx what they may have, 13xx the request. docs/errors.md has the same table."""

    meaning: str
    #: Whether the same request may succeed later without a change by the client.
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
    SERVICE_UNAVAILABLE = 1203, "The worker is full, or the broker does not answer.", True
    INVALID_FORMAT = 1301, "A part of the request is not valid: a channel's name, a number or the body."
    DATA_NOT_FOUND = 1302, "The request names something that does not exist."
    DATA_CONFLICT = 1303, "The thing that the request names has changed in the meantime."


def error_body(code: ErrorCode, message: str, details: dict[str, Any] | None = None) -> dict[str, Any]:
    """The shape of every error a client sees, in a refusal's JSON and in `sse.error`."""
    return {
        "code": int(code),
        "name": code.name,
        "message": message,
        "details": details or {},
        "retry": code.retry,
        "timestamp": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
    }


class Refused(SSEPushError):
    """A request for a stream was turned down before it began: raised in a view, it becomes the answer.

    `status` is the HTTP status, `code` and `message` stand in the JSON body, `retry_after` is seconds.
    """

    def __init__(
        self,
        status: int,
        code: ErrorCode,
        message: str,
        *,
        details: dict[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.details = details
        self.retry_after = retry_after
