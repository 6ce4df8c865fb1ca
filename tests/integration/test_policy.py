"""Who gets a stream, and how other requests are refused: tokens, tickets, origins."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from flask import Flask
from flask.testing import FlaskClient
from flask_login import LoginManager, UserMixin, login_user
from werkzeug.test import TestResponse

from flask_sse_push import BearerJWT, Identity, SSEBlueprint
from flask_sse_push.auth.flask_login import session_identity
from flask_sse_push.errors import Refused
from tests.support.provider import AUDIENCE, provider, public_jwk, token

from .conftest import MakeApp
from .test_blueprint import listening

KEY = "a secret of thirty-two bytes, at least"
SHOP = "https://shop.example"


def bearer(seconds: float = 60, **claims: Any) -> dict[str, str]:
    text = jwt.encode({"sub": "ada", "exp": time.time() + seconds, **claims}, KEY, "HS256")
    return {"Authorization": f"Bearer {text}"}


def refusal(answer: TestResponse) -> tuple[int, int]:
    assert answer.json is not None
    assert set(answer.json) == {"code", "name", "message", "details", "retry", "timestamp"}
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.mimetype == "application/json"
    return answer.status_code, answer.json["code"]


def opens(client: FlaskClient, path: str, **options: Any) -> list[str]:
    """Opens a stream; returns its channels."""
    with listening(client, path, **options) as reader:
        return list(Flask("x").json.loads(reader.next()["data"])["channels"])


# -- tokens -------------------------------------------------------------------------------------------------


@pytest.fixture
def with_tokens(make_app: MakeApp) -> FlaskClient:
    app, sse = make_app()
    sse.identify(BearerJWT(KEY, algorithms=["HS256"]))
    return app.test_client()


def test_a_token_opens_its_users_channel(with_tokens: FlaskClient) -> None:
    assert opens(with_tokens, "/stream?channels=sse,user:ada", headers=bearer()) == ["sse", "user:ada"]


def test_without_a_token_only_public_channels_are_open(with_tokens: FlaskClient) -> None:
    assert opens(with_tokens, "/stream") == ["sse"]
    answer = with_tokens.get("/stream?channels=user:ada")
    assert refusal(answer) == (401, 1101)
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("claims", "code"),
    [({"seconds": -1}, 1103), ({"aud": "other"}, 1102), (None, 1102)],
)
def test_a_bad_token_is_refused_even_for_public_channels(
    with_tokens: FlaskClient, claims: dict[str, Any] | None, code: int
) -> None:
    headers = bearer(**claims) if claims else {"Authorization": "Bearer x.y.z"}
    answer = with_tokens.get("/stream", headers=headers)
    assert refusal(answer) == (401, code)
    assert answer.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
    assert headers["Authorization"].split()[1] not in answer.get_data(as_text=True)


def test_another_users_channel_and_one_that_does_not_exist_look_alike(with_tokens: FlaskClient) -> None:
    answers = [
        with_tokens.get(f"/stream?channels={name}", headers=bearer()) for name in ("user:bob", "user:nobody")
    ]
    assert [refusal(answer) for answer in answers] == [(403, 1201)] * 2
    first, second = (dict(answer.json or {}) for answer in answers)
    for body, name in ((first, "user:bob"), (second, "user:nobody")):
        assert body.pop("details") == {"channel": name}
        body["message"] = body["message"].replace(name, "")
        body.pop("timestamp")
    assert first == second


def test_the_first_identify_function_that_finds_a_user_decides(make_app: MakeApp) -> None:
    app, sse = make_app()
    sse.identify(BearerJWT(KEY, algorithms=["HS256"]))
    sse.identify(session_identity)
    sse.identify(lambda request: request.args.get("as"))
    client = app.test_client()
    assert opens(client, "/stream?channels=user:ada&as=bob", headers=bearer()) == ["user:ada"]
    assert opens(client, "/stream?channels=user:bob&as=bob") == ["user:bob"]


# -- several issuers ----------------------------------------------------------------------------------------


@pytest.fixture
def with_issuers(make_app: MakeApp) -> Iterator[FlaskClient]:
    """An app that accepts tokens of two identity providers, and a shared secret for its own."""
    app, sse = make_app()
    with provider() as first, provider() as second:
        second.keys = [public_jwk("RS256-new", kid="RS256")]  # each provider counts its keys in its own way
        for running, issuer in ((first, "first"), (second, "second")):
            sse.identify(BearerJWT.from_jwks(running.url, issuer=issuer, audience=AUDIENCE))
        sse.identify(BearerJWT(KEY, algorithms=["HS256"], issuer="own"))
        yield app.test_client()
        assert (first.fetches <= 1, second.fetches <= 1) == (True, True)


def test_each_issuer_has_its_own_keys(with_issuers: FlaskClient) -> None:
    for kind, issuer, code in [
        ("RS256", "first", 200),
        ("RS256-new", "second", 200),
        ("RS256", "second", 401),
        ("RS256-new", "first", 401),
        ("RS256", "third", 401),
    ]:
        sent = {"Authorization": f"Bearer {token(kind, kid='RS256', iss=issuer)}"}
        answer = with_issuers.get("/stream?channels=user:ada", headers=sent)
        assert answer.status_code == code, (kind, issuer)
        answer.close()
    assert opens(with_issuers, "/stream?channels=user:ada", headers=bearer(iss="own")) == ["user:ada"]


def test_a_token_of_an_issuer_that_nobody_knows_is_refused_even_for_public_channels(
    with_issuers: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for text in (token(iss="third"), token(iss=None)):
        answer = with_issuers.get("/stream", headers={"Authorization": f"Bearer {text}"})
        assert refusal(answer) == (401, 1102)
    assert "(the claim iss is 'third', but must be 'first')" in caplog.text


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        ({"aud": "other"}, "InvalidAudienceError: "),
        ({"kid": "unknown"}, "/keys has no such key"),
        ({"kind": "RS256-new", "kid": "RS256"}, "no known key fits the signature"),
        ({"exp": None}, 'Token is missing the "exp" claim'),
    ],
    ids=str,
)
def test_the_log_says_why_a_token_was_refused_and_the_client_does_not_get_it(
    with_issuers: FlaskClient, made: dict[str, Any], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    text = token(**made, iss="first")
    answer = with_issuers.get("/stream", headers={"Authorization": f"Bearer {text}"})
    assert refusal(answer) == (401, 1102)
    (line,) = [record.getMessage() for record in caplog.records if "refused with" in record.getMessage()]
    assert reason in line
    assert reason not in answer.get_data(as_text=True)


# -- tickets ------------------------------------------------------------------------------------------------


class Member(UserMixin):  # type: ignore[misc]
    def __init__(self, id: str) -> None:
        self.id = id


@pytest.fixture
def members() -> dict[str, Member]:
    return {"ada": Member("ada")}


@pytest.fixture
def club(make_app: MakeApp, members: dict[str, Member]) -> tuple[Flask, SSEBlueprint]:
    """An app with flask-login, whose members may listen to the club."""
    app, sse = make_app()
    LoginManager(app).user_loader(members.get)

    @sse.authorize
    def allowed(user: Member | None, channel: str) -> bool:
        return user is not None and channel == "club"

    @app.get("/ticket/<name>")
    def ticket(name: str) -> str:
        return sse.ticket(members.get(name), ["club"])

    @app.get("/login/<name>")
    def sign_in(name: str) -> str:
        login_user(members[name])
        return ""

    return app, sse


def ticket_of(app: Flask) -> str:
    return app.test_client().get("/ticket/ada").get_data(as_text=True)


def test_a_ticket_opens_its_channels_without_a_session(club: tuple[Flask, SSEBlueprint]) -> None:
    app, _ = club
    assert opens(app.test_client(), f"/stream?ticket={ticket_of(app)}") == ["club"]
    assert opens(app.test_client(), f"/stream?channels=club,sse&ticket={ticket_of(app)}") == ["club", "sse"]


def test_a_ticket_opens_one_stream(club: tuple[Flask, SSEBlueprint]) -> None:
    app, _ = club
    path = f"/stream?ticket={ticket_of(app)}"
    assert opens(app.test_client(), path) == ["club"]
    assert refusal(app.test_client().get(path)) == (401, 1102)


def test_a_refused_request_and_one_for_the_headers_do_not_use_the_ticket_up(
    club: tuple[Flask, SSEBlueprint],
) -> None:
    app, _ = club
    path = f"/stream?ticket={ticket_of(app)}"
    client = app.test_client()
    assert client.head(path).status_code == 200
    assert refusal(client.get(f"{path}&channels=club,other")) == (403, 1201)
    assert refusal(client.get(f"{path}&last=many")) == (400, 1301)
    assert opens(client, path) == ["club"]


def test_a_ticket_does_not_open_other_channels_of_its_user(club: tuple[Flask, SSEBlueprint]) -> None:
    app, _ = club
    answer = app.test_client().get(f"/stream?channels=user:ada&ticket={ticket_of(app)}")
    assert refusal(answer) == (403, 1201)


def test_a_ticket_is_only_made_for_channels_its_user_may_listen_to(club: tuple[Flask, SSEBlueprint]) -> None:
    app, sse = club
    assert refusal(app.test_client().get("/ticket/nobody")) == (401, 1101)
    with app.app_context(), pytest.raises(Refused):
        sse.ticket(Member("ada"), ["club", "vault"])


def test_a_ticket_of_a_user_who_was_removed_is_refused(
    club: tuple[Flask, SSEBlueprint], members: dict[str, Member]
) -> None:
    app, _ = club
    path = f"/stream?ticket={ticket_of(app)}"
    members.clear()
    assert refusal(app.test_client().get(path)) == (401, 1102)


def test_a_ticket_for_an_id_that_is_not_utf8_is_a_clear_error(make_app: MakeApp) -> None:
    app, sse = make_app(public_channels=["news"])
    with app.test_request_context(), pytest.raises(ValueError, match="lone surrogate"):
        sse.ticket("ada\ud800", "news")


def test_a_ticket_counts_instead_of_the_session(club: tuple[Flask, SSEBlueprint]) -> None:
    app, _ = club
    client = app.test_client()
    client.get("/login/ada")
    assert opens(client, "/stream?channels=user:ada") == ["user:ada"]
    assert refusal(client.get("/stream?channels=user:ada&ticket=forged")) == (401, 1102)


def test_in_an_app_without_users_the_rule_gets_the_id_in_the_ticket(make_app: MakeApp) -> None:
    app, sse = make_app()
    sse.authorize(lambda user, channel: (user, channel) == ("7", "club") or user == 7)
    with app.app_context():
        text, again = sse.ticket(7, "club"), sse.ticket(7, "club")
    assert opens(app.test_client(), f"/stream?ticket={text}") == ["club"]
    sse.authorize(lambda user, channel: False)
    assert refusal(app.test_client().get(f"/stream?ticket={again}")) == (403, 1201)


@pytest.mark.parametrize("company", [False, True], ids=["first stream of the worker", "others are open"])
@pytest.mark.parametrize("channel", [None, "club"])
def test_a_revocation_ends_the_unused_tickets_of_its_user(
    make_app: MakeApp, channel: str | None, company: bool
) -> None:
    app, sse = make_app()
    sse.authorize(lambda user, channel: True)
    with app.app_context(), contextlib.ExitStack() as streams:
        company_stream = listening(app.test_client(), "/stream?channels=sse")
        reader = streams.enter_context(company_stream) if company else None
        if reader is not None:
            assert reader.next()["event"] == "sse.open"
        early, others = sse.ticket("ada", "club"), sse.ticket("bob", "club")
        apart, nobodys = sse.ticket("ada", "lab"), sse.ticket(None, "club")
        sse.revoke("ada", channel)
        late = sse.ticket("ada", "club")
        if reader is not None:  # the worker has heard of the revocation when it has sent a later event
            sse.publish("later", type="later")
            assert reader.next()["event"] == "later"
        assert refusal(app.test_client().get(f"/stream?ticket={early}")) == (401, 1102)
        for ticket in (others, nobodys, late):
            assert opens(app.test_client(), f"/stream?ticket={ticket}") == ["club"]
        of_other_channel = app.test_client().get(f"/stream?ticket={apart}", buffered=False)
        assert of_other_channel.status_code == (401 if channel is None else 200)
        of_other_channel.close()


def test_a_ticket_for_rights_that_were_revoked_during_the_same_request_is_ended(make_app: MakeApp) -> None:
    """The app loads the user, then the rights are revoked, then the app makes the ticket."""
    app, sse = make_app()
    sse.authorize(lambda user, channel: True)

    @app.get("/ticket")
    def ticket() -> str:
        sse.revoke("ada")
        return sse.ticket("ada", "club")

    text = app.test_client().get("/ticket").text
    assert refusal(app.test_client().get(f"/stream?ticket={text}")) == (401, 1102)


def test_tickets_end_with_the_data_of_the_broker(make_app: MakeApp) -> None:
    """The broker may have lost a revocation too."""
    app, sse = make_app()
    sse.authorize(lambda user, channel: True)
    with app.app_context():
        text = sse.ticket("ada", "club")
    services = app.extensions["sse_push"][sse].services
    services.restart(services.settings)  # `memory://` begins anew
    assert refusal(app.test_client().get(f"/stream?ticket={text}")) == (401, 1102)


def test_the_apps_own_loader_finds_the_user_of_a_ticket(make_app: MakeApp) -> None:
    app, sse = make_app()
    sse.load_user(lambda id: {"id": id, "team": "red"})
    users: list[Any] = []

    @sse.authorize
    def allowed(user: Any, channel: str) -> bool:
        users.append(user)
        return True

    with app.app_context():
        text = sse.ticket("ada", "club")
    assert opens(app.test_client(), f"/stream?ticket={text}") == ["club"]
    assert users == ["ada", {"id": "ada", "team": "red"}]


@pytest.mark.parametrize("channels", [[], ["no good"], [f"c{n}" for n in range(60)]])
def test_a_ticket_without_valid_channels_is_an_error_of_the_app(
    club: tuple[Flask, SSEBlueprint], channels: list[str]
) -> None:
    app, sse = club
    with app.app_context(), pytest.raises(ValueError, match="channel"):
        sse.ticket("ada", channels)


def test_hooks_that_run_after_routing_see_no_ticket(club: tuple[Flask, SSEBlueprint]) -> None:
    app, _ = club
    seen: list[str] = []

    @app.after_request
    def note(response: Any) -> Any:
        from flask import request

        seen.extend([request.url, request.full_path, str(request.environ)])
        return response

    text = ticket_of(app)
    seen.clear()
    opens(app.test_client(), f"/stream?channels=club&ticket={text}")
    app.test_client().get("/stream?channels=club&ticket=forged")
    assert len(seen) == 6
    for shown in seen:
        assert text not in shown
        assert "forged" not in shown


def test_a_stream_with_a_cursor_is_checked_like_a_new_one(
    club: tuple[Flask, SSEBlueprint], members: dict[str, Member]
) -> None:
    app, sse = club
    client = app.test_client()
    client.get("/login/ada")
    with listening(client, "/stream?channels=club") as reader:
        cursor = reader.next()["id"]
    with app.app_context():
        sse.publish("secret", channel="club")
    members.clear()
    for place in (f"&last_event_id={cursor}", "&last=5", "&last_event_id=earliest"):
        assert refusal(client.get(f"/stream?channels=club{place}")) == (401, 1101)
    assert refusal(client.get("/stream?channels=club", headers={"Last-Event-ID": cursor})) == (401, 1101)


def test_a_stream_sets_no_cookie_and_is_kept_by_no_cache(club: tuple[Flask, SSEBlueprint]) -> None:
    app, _ = club
    client = app.test_client()
    client.get("/login/ada")
    with listening(client, "/stream?channels=club") as reader:
        assert "Set-Cookie" not in reader.response.headers
        assert {"no-store", "private"} <= set(reader.response.headers["Cache-Control"].split(", "))
        assert "Cookie" in reader.response.vary


# -- identities ---------------------------------------------------------------------------------------------


def test_identify_may_return_an_identity(make_app: MakeApp) -> None:
    app, sse = make_app()
    sse.identify(lambda request: Identity("ada", expires=time.time() + 60))
    assert opens(app.test_client(), "/stream?channels=user:ada") == ["user:ada"]


def test_an_identity_that_has_expired_is_refused(make_app: MakeApp) -> None:
    app, sse = make_app()
    sse.identify(lambda request: Identity("ada", expires=time.time() - 1))
    answer = app.test_client().get("/stream?channels=user:ada")
    assert answer.status_code == 401
    assert answer.get_json()["code"] == 1103


# -- origins ------------------------------------------------------------------------------------------------


def test_a_page_of_a_listed_origin_may_read_the_stream_and_its_refusals(make_app: MakeApp) -> None:
    app, _ = make_app(cors_origins=[SHOP])
    client = app.test_client()
    for path in ("/stream", "/stream?channels=secret", "/stream/client/push-client.js"):
        answer = client.get(path, headers={"Origin": SHOP})
        assert answer.headers["Access-Control-Allow-Origin"] == SHOP
        assert answer.headers["Access-Control-Allow-Credentials"] == "true"
        assert "Origin" in answer.vary
        answer.close()


def test_a_page_of_another_origin_gets_no_stream(make_app: MakeApp) -> None:
    app, _ = make_app(cors_origins=[SHOP])
    for origin in ("https://evil.example", "null", SHOP + ".evil.example"):
        answer = app.test_client().get("/stream", headers={"Origin": origin})
        assert refusal(answer) == (403, 1201)
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert "Origin" in answer.vary


def test_the_apps_own_pages_need_no_permission(make_app: MakeApp) -> None:
    app, _ = make_app(cors_origins=[SHOP])
    client = app.test_client()
    assert opens(client, "/stream") == ["sse"]
    assert opens(client, "/stream", headers={"Origin": "http://localhost"}) == ["sse"]


def test_a_preflight_is_answered_for_listed_origins_only(make_app: MakeApp) -> None:
    app, _ = make_app(cors_origins=[SHOP])
    preflight = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "last-event-id"}
    allowed = app.test_client().options("/stream", headers={"Origin": SHOP, **preflight})
    assert allowed.status_code == 200
    assert "Last-Event-ID" in allowed.headers["Access-Control-Allow-Headers"]
    refused = app.test_client().options("/stream", headers={"Origin": "https://evil.example", **preflight})
    assert not [name for name, _ in refused.headers if name.startswith("Access-Control-Allow")]


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "chrome-extension://abc", "http://localhost:1"]
)
def test_without_the_setting_pages_of_other_origins_get_no_stream(
    make_app: MakeApp, origin: str, caplog: pytest.LogCaptureFixture
) -> None:
    app, _ = make_app()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            answer = app.test_client().get("/stream", headers={"Origin": origin})
            assert refusal(answer) == (403, 1201)
            assert answer.json is not None
            assert repr(origin) in answer.json["message"]
            assert "SSE_PUSH_CORS_ORIGINS" in answer.json["message"]
            assert not [name for name, _ in answer.headers if name.startswith("Access-Control")]
    (record,) = caplog.records
    assert "SSE_PUSH_CORS_ORIGINS" in record.getMessage()
    assert repr(origin) in record.getMessage()


def test_a_page_of_the_app_gets_a_stream_behind_a_proxy_that_changes_the_host(make_app: MakeApp) -> None:
    app, _ = make_app()
    page = {"Origin": "https://shop.example", "Sec-Fetch-Site": "same-origin"}
    assert opens(app.test_client(), "/stream", headers=page) == ["sse"]
    for site in ("same-site", "cross-site", ""):
        answer = app.test_client().get("/stream", headers={**page, "Sec-Fetch-Site": site})
        assert refusal(answer) == (403, 1201)


def test_a_refused_page_uses_no_ticket_and_no_place(make_app: MakeApp) -> None:
    app, sse = make_app(max_streams_per_address=1)
    with app.test_request_context():
        ticket = sse.ticket("ada", ["sse"])
    client = app.test_client()
    foreign = {"Origin": "https://evil.example"}
    assert refusal(client.get(f"/stream?ticket={ticket}", headers=foreign)) == (403, 1201)
    assert opens(client, f"/stream?ticket={ticket}") == ["sse"]


def test_programs_that_are_no_browser_need_no_permission(make_app: MakeApp) -> None:
    for origins in ([], [SHOP]):
        app, _ = make_app(cors_origins=origins)
        assert opens(app.test_client(), "/stream", headers={"User-Agent": "curl/8"}) == ["sse"]
