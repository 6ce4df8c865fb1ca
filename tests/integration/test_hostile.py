"""Ten thousand connections of hostile clients: each gets a stream or a proper refusal."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote_from_bytes

import pytest
import redis
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from flask_sse_push import BearerJWT, ErrorCode, SSEBlueprint
from flask_sse_push.monitoring import refusals
from tests.apps.club import KEY

CONNECTS = 10_000
BATCH = 50

CODES = {
    400: {1301},
    401: {1101, 1102, 1103},
    403: {1201},
    413: {1301},
    415: {1301},
    429: {1202},
}

KEYS = [
    "channels",
    "channel",
    "last_event_id",
    "lastEventId",
    "last",
    "ticket",
    "tagged",
    "as",
    "batch",
    "events",
    "x",
]
TYPES = [None, "application/json", "application/x-www-form-urlencoded", "text/plain"]
HEADERS = ["LAST_EVENT_ID", "AUTHORIZATION", "ORIGIN", "COOKIE", "X_FORWARDED_FOR", "ACCEPT", "HOST"]
SEEDS = [
    "sse", "room", "user:ada", "user:", "*", "!control", "a,b,,c", "earliest", "0", "-1", "9" * 400, "1e9",
    "²", "NaN", "null", "__proto__", "{sse:0}:state", "a\r\nSET x y", "\n\n", "\x00", "\ud7ff", "\u2028",
    "../../etc/passwd", "%", "%zz", "%00", "Bearer", "Bearer ..", "Bearer eyJhbGciOiJub25lIn0.e30.",
    "Basic x", "0-0", "a-zzzzzzzzzzzzzzzz", "." * 300, "x" * 9000, "https://evil.example", "::1", "session=x",
]  # fmt: skip

raw = st.one_of(st.binary(max_size=60), st.sampled_from([seed.encode() for seed in SEEDS]))
value = st.one_of(raw, st.builds(lambda parts: b",".join(parts), st.lists(raw, max_size=4)))
pair = st.builds(
    lambda key, text, encoded: f"{key}={quote_from_bytes(text) if encoded else text.decode('latin-1')}",
    st.sampled_from(KEYS),
    value,
    st.booleans(),
)
query = st.one_of(st.lists(pair, max_size=4).map("&".join), raw.map(lambda text: text.decode("latin-1")))
header = st.tuples(st.sampled_from(HEADERS), value.map(lambda text: text.decode("latin-1")))
json_body = st.dictionaries(
    st.sampled_from(KEYS),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.sampled_from(SEEDS)
        | st.text(max_size=9),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=2),
        max_leaves=4,
    ),
    max_size=4,
).map(lambda body: json.dumps(body).encode())
form_body = query.map(lambda text: text.encode("latin-1"))
#: The body of a POST, and its type.
body = st.tuples(st.one_of(json_body, form_body, raw), st.sampled_from(TYPES))

Attempt = tuple[str, list[tuple[str, str]], str, tuple[bytes, str | None]]
METHODS = ["GET", "GET", "GET", "POST", "POST", "HEAD", "OPTIONS"]
connect = st.tuples(query, st.lists(header, max_size=3), st.sampled_from(METHODS), body)


@pytest.fixture
def target(empty_valkey: str) -> Iterator[tuple[FlaskClient, redis.Redis]]:
    """An app with everything that reads a request, on a Valkey."""
    app = Flask(__name__)
    app.secret_key = "secret"
    app.config.update(
        SSE_PUSH_BROKER_URL=empty_valkey,
        SSE_PUSH_CORS_ORIGINS=["https://shop.example"],
        SSE_PUSH_MAX_STREAMS_PER_USER=3,
        SSE_PUSH_MAX_STREAMS_PER_ADDRESS=1000,
        SSE_PUSH_RATE_PER_USER="1000000/minute",
        SSE_PUSH_RATE_PER_ADDRESS="1000000/minute",
    )
    sse = SSEBlueprint("sse")
    app.register_blueprint(sse, url_prefix="/stream")
    sse.identify(BearerJWT(KEY, algorithms=["HS256"]))
    sse.identify(lambda request: request.args.get("as"))
    sse.authorize(lambda user, channel: user == "ada" or channel == "room")
    with redis.Redis.from_url(empty_valkey) as beside:
        yield app.test_client(), beside
    with app.app_context():
        sse.services.close()


def errors_of(server: redis.Redis) -> dict[str, Any]:
    """Commands that the server refused, by kind. NOSCRIPT is how a client learns that it must load one."""
    stats = dict(server.info("errorstats"))
    stats.pop("errorstat_NOSCRIPT", None)
    return stats


def send(client: FlaskClient, attempt: Attempt) -> int:
    """Opens one connection, and reads the first bytes of a stream. Returns the status."""
    text, headers, method, (data, type) = attempt
    overrides = {"QUERY_STRING": text, **{f"HTTP_{name}": content for name, content in headers}}
    sent: dict[str, Any] = {"data": data, "content_type": type} if method == "POST" else {}
    answer = client.open("/stream", method=method, environ_overrides=overrides, buffered=False, **sent)
    try:
        if answer.status_code == 200:
            if method in ("GET", "POST"):
                assert any(b"id: " in chunk for chunk in answer.response)
        elif not answer.is_json:  # werkzeug itself refuses a Host that is none
            assert (answer.status_code, "HTTP_HOST" in overrides) == (400, True)
        elif method != "HEAD":
            assert answer.json is not None
            assert answer.json["code"] in CODES[answer.status_code]
            assert answer.json["name"] == ErrorCode(answer.json["code"]).name
            json.dumps(answer.json).encode()
        for _, content in answer.headers:
            assert "\n" not in content
            assert "\r" not in content
    finally:
        answer.close()
    return answer.status_code


def test_no_request_causes_an_internal_error(
    target: tuple[FlaskClient, redis.Redis], caplog: pytest.LogCaptureFixture
) -> None:
    client, beside = target
    statuses: Counter[int] = Counter()
    before = errors_of(beside)

    @settings(
        max_examples=CONNECTS // BATCH,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(connect, min_size=BATCH, max_size=BATCH))
    def attack(attempts: list[Attempt]) -> None:
        for attempt in attempts:
            statuses[send(client, attempt)] += 1

    attack()
    print(dict(statuses))
    assert sum(statuses.values()) >= CONNECTS
    assert set(statuses) <= {200, *CODES}
    assert {200, 400, 401, 403, 415} <= set(statuses)
    assert errors_of(beside) == before
    loud = [record for record in caplog.records if record.levelname != "INFO"]
    # The first refusal of each kind, a line that says when there are too many, and nothing else.
    assert {(record.levelname, record.name) for record in loud} == {("WARNING", refusals.__name__)}
    assert len(loud) <= refusals.MAX_KINDS + 1
