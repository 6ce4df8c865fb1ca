"""What others send to the admin routes: pages of other origins, and values that our page never sends."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from .conftest import MakeApp
from .test_admin import ADMIN, Site

FRIEND = "https://friend.example.com"
#: Headers with which browsers send the request of a page of another origin.
FOREIGN: list[dict[str, str]] = [
    {"Origin": FRIEND},
    {"Origin": FRIEND, "Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "cross-site"},  # a script or an image of another site
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "null"},
]


@pytest.fixture
def site(make_app: MakeApp) -> Iterator[Site]:
    site = Site(make_app(cors_origins=[FRIEND]))
    with site.streams:
        yield site


# -- pages of other origins ----------------------------------------------------------------------------------


@pytest.mark.parametrize("foreign", FOREIGN, ids=str)
@pytest.mark.parametrize("origins", [[FRIEND], []], ids=["listed", "not listed"])
def test_no_page_of_another_origin_reads_the_live_channel(
    make_app: MakeApp, foreign: dict[str, str], origins: list[str]
) -> None:
    site = Site(make_app(cors_origins=origins))
    client, headers = site.client, {**ADMIN, **foreign}
    with site.app.app_context():
        ticket = site.sse.ticket("root", "sse.admin")
    form = {"channels": "sse.admin"}
    answers = [
        client.get("/stream?channels=sse.admin", headers=headers),
        client.get("/stream?channels=sse,sse.admin&poll=1", headers=headers),
        client.get(f"/stream?ticket={ticket}", headers=foreign),
        client.post("/stream", data=form, headers=headers),
    ]
    assert [answer.status_code for answer in answers] == [403] * 4
    with site.app.app_context():
        assert "admin watch" not in vars(site.sse.services)


@pytest.mark.parametrize("foreign", FOREIGN, ids=str)
def test_no_page_of_another_origin_joins_the_live_channel(site: Site, foreign: dict[str, str]) -> None:
    reader = site.streams.enter_context(_opened(site, {**ADMIN, "Origin": FRIEND}))
    opened = json.loads(reader.next()["data"])
    path, body = f"/stream/{opened['connection']}/channels", {"secret": opened["secret"]}

    def status(channel: str, **headers: str) -> int:
        answer = site.client.post(path, json={**body, "join": [channel]}, headers={**ADMIN, **headers})
        return answer.status_code

    assert status("sse.admin", **foreign) == 403
    assert status("sse.admin") == 202
    assert status("user:root", Origin=FRIEND) == 202  # other channels stay open to listed origins


def _opened(site: Site, headers: dict[str, str]) -> Any:
    from .test_blueprint import listening

    return listening(site.app.test_client(), "/stream?channels=sse", headers=headers)


def test_pages_of_the_app_read_the_live_channel(site: Site) -> None:
    own: list[dict[str, str]] = [
        {},
        {"Origin": "http://localhost"},
        {"Origin": "https://shop.example", "Sec-Fetch-Site": "same-origin"},  # a proxy changed the Host
    ]
    for headers in own:
        site.open("root", "sse.admin", **headers)


def test_a_refusal_names_no_setting_that_would_not_help(site: Site) -> None:
    for origin in (FRIEND, "https://evil.example", "null"):
        answer = site.write("channel/events", {"channel": "sse", "data": 1}, Origin=origin)
        assert answer.status_code == 403
        assert "only the app's own pages may" in answer.get_json()["message"]
        assert "to allow them" not in answer.get_json()["message"]


# -- values --------------------------------------------------------------------------------------------------

#: Texts that are no number of a request, or a number beyond all bounds.
NUMBERS = ("nan", "inf", "-inf", "1e999", "9" * 290, "-1", "+5", "1_0", "0x1", "\u0661", "1e2", " ", "%00")


@pytest.mark.parametrize("number", NUMBERS)
def test_a_number_that_is_none_is_answered_as_json(site: Site, number: str) -> None:
    site.open("7")
    for route in (
        *(f"streams?after={number},x", f"streams?limit={number}", f"channels?limit={number}"),
        *(f"channel/events?name=sse&{name}={number}" for name in ("limit", "before")),
    ):
        refused = site.client.get(f"/stream/admin/{route}", headers=ADMIN)
        assert (refused.status_code, refused.is_json) == (400, True), route


def test_texts_that_nothing_matches_are_no_fault_of_the_server(site: Site) -> None:
    for text in ("%00", "%ff", "%ed%a0%80", "x" * 300, "*", "[", "..%2f..", "1,2"):
        for route in (
            *(f"streams?{name}={text}" for name in ("user", "channel", "address", "worker", "after")),
            *(f"streams/{text}", f"channels?contains={text}", f"channel?name={text}"),
            *(f"channel/events?name={text}", f"why?user={text}", f"why?user=7&channel={text}"),
            *(f"why?address={text}&channel=sse", f"runs?limit={text}"),
        ):
            answer = site.client.get(f"/stream/admin/{route}", headers=ADMIN)
            assert answer.status_code in (200, 400, 404), route


def test_a_test_event_is_answered_as_an_event_over_http(site: Site) -> None:
    site.sse.authorize_publish(lambda user, channel: True)
    kinds: list[Any] = [5, True, [], {}, "", "a\nb", "x" * 300]
    names: list[Any] = [5, None, "", "a b", ["sse"]]
    bodies: list[dict[str, Any]] = [
        *({"event": kind, "data": 1} for kind in kinds),
        *({"event": "x", "data": 1, "channel": name} for name in names),
    ]
    for body in bodies:
        wanted = site.client.post("/stream/publish", json=body, headers=ADMIN)
        sent = {"channel": "sse", **body}
        sent["type"] = sent.pop("event")
        found = site.write("channel/events", sent)
        assert (found.status_code, found.status_code // 100) == (wanted.status_code, 4), (body, found.text)
        assert found.get_json().get("code") == wanted.get_json().get("code")
    for text in ("NaN", "1e999", '"\\ud800"', "9" * 5000):
        headers = {**ADMIN, **site.read("session")["write_headers"], "Content-Type": "application/json"}
        data = f'{{"channel": "sse", "type": "x", "data": {text}}}'
        answer = site.client.post("/stream/admin/channel/events", data=data, headers=headers)
        assert answer.status_code in (201, 400, 413, 422), text


def test_only_a_stream_that_can_be_is_disconnected(site: Site) -> None:
    for id in ("x", "none", "f" * 15, "g" * 16, "f" * 400, "%20", "%00"):
        answer = site.write(f"streams/{id}/disconnect", {})
        assert (answer.status_code, answer.is_json) == (404, True), id
    assert site.write(f"streams/{secrets.token_hex(8)}/disconnect", {}).status_code == 202
