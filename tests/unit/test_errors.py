"""The exceptions, their attributes, and the JSON that clients see."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from flask_sse_push.errors import (
    BrokerUnavailable,
    ConfigError,
    ErrorCode,
    InvalidEvent,
    InvalidPayload,
    MessageTooLarge,
    Refused,
    SSEPushError,
    error_body,
)

CODES = {
    1001: ("CONNECTION_FAILED", False),
    1002: ("CONNECTION_TIMEOUT", True),
    1003: ("CONNECTION_CLOSED", False),
    1101: ("AUTH_REQUIRED", False),
    1102: ("AUTH_FAILED", False),
    1103: ("AUTH_EXPIRED", False),
    1201: ("PERMISSION_DENIED", False),
    1202: ("RATE_LIMIT_EXCEEDED", True),
    1203: ("SERVICE_UNAVAILABLE", True),
    1301: ("INVALID_FORMAT", False),
    1302: ("DATA_NOT_FOUND", False),
    1303: ("DATA_CONFLICT", False),
}


@pytest.mark.parametrize(
    ("error", "base"),
    [
        (ConfigError, SSEPushError),
        (InvalidEvent, SSEPushError),
        (InvalidEvent, ValueError),
        (MessageTooLarge, InvalidEvent),
        (InvalidPayload, SSEPushError),
        (InvalidPayload, ValueError),
        (BrokerUnavailable, SSEPushError),
        (Refused, SSEPushError),
        (SSEPushError, Exception),
    ],
)
def test_the_error_is_caught_by_its_base(error: type[Exception], base: type[Exception]) -> None:
    assert issubclass(error, base)


def test_a_config_error_says_key_value_and_what_was_expected() -> None:
    error = ConfigError("SSE_PUSH_RETRY", -1, "a number of seconds")
    assert (error.key, error.value, error.expected) == ("SSE_PUSH_RETRY", -1, "a number of seconds")
    assert str(error) == "SSE_PUSH_RETRY is -1, but must be a number of seconds"


def test_an_invalid_event_says_field_and_problem() -> None:
    error = InvalidEvent("type", "has 0 characters")
    assert (error.field, error.problem) == ("type", "has 0 characters")
    assert str(error) == "type: has 0 characters"


def test_a_message_too_large_says_both_sizes_and_what_to_do() -> None:
    error = MessageTooLarge(10_001, 10_000)
    assert (error.field, error.size, error.max_bytes) == ("data", 10_001, 10_000)
    for part in ("10001 bytes", "SSE_PUSH_MAX_MESSAGE allows 10000", "publish a reference"):
        assert part in str(error)


def test_the_codes_are_the_published_table() -> None:
    assert {int(code): (code.name, code.retry) for code in ErrorCode} == CODES


def test_an_error_body_has_the_fields_that_clients_read() -> None:
    before = datetime.now(UTC)
    body = error_body(ErrorCode.RATE_LIMIT_EXCEEDED, "slow down", {"limit": 5})
    # The timestamp has milliseconds, so it may lie up to one of them before the call.
    at = datetime.fromisoformat(body.pop("timestamp"))
    assert before - timedelta(milliseconds=1) <= at <= datetime.now(UTC)
    assert at.utcoffset() == timedelta(0)
    assert body == {
        "code": 1202,
        "name": "RATE_LIMIT_EXCEEDED",
        "message": "slow down",
        "details": {"limit": 5},
        "retry": True,
    }
    assert type(body["code"]) is int


def test_an_error_body_without_details_has_an_empty_object() -> None:
    assert error_body(ErrorCode.AUTH_REQUIRED, "who are you?")["details"] == {}


def test_a_refusal_has_the_fields_of_its_response() -> None:
    refused = Refused(503, ErrorCode.SERVICE_UNAVAILABLE, "full", details={"streams": 900}, retry_after=1.5)
    assert (refused.status, refused.code, refused.message) == (503, 1203, "full")
    assert (refused.details, refused.retry_after) == ({"streams": 900}, 1.5)
    assert str(refused) == "full"


def test_a_refusal_has_no_details_and_no_retry_unless_given() -> None:
    refused = Refused(400, ErrorCode.INVALID_FORMAT, "what?")
    assert refused.details is None
    assert refused.retry_after is None
